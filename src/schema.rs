// @generated automatically by Diesel CLI.

diesel::table! {
    accounts (id) {
        id -> Int8,
        title -> Text,
        status -> Text,
        key_count -> Int8,
        created_at -> Timestamp,
        deleted_at -> Nullable<Timestamp>,
    }
}

diesel::table! {
    api_key_calls (api_key_id, hour, outcome) {
        api_key_id -> Int8,
        hour -> Timestamp,
        outcome -> Text,
        calls -> Int8,
    }
}

diesel::table! {
    api_key_domains (api_key_id, domain_id) {
        api_key_id -> Int8,
        domain_id -> Int8,
    }
}

diesel::table! {
    api_key_uses (api_key_id) {
        api_key_id -> Int8,
        used_at -> Timestamp,
        address -> Text,
        user_agent -> Text,
    }
}

diesel::table! {
    api_keys (id) {
        id -> Int8,
        account_id -> Int8,
        name -> Text,
        hash -> Nullable<Bytea>,
        first8 -> Text,
        last4 -> Text,
        all_domains -> Bool,
        status -> Text,
        created_by -> Nullable<Int8>,
        created_at -> Timestamp,
        ended_at -> Nullable<Timestamp>,
        ended_domain_names -> Nullable<Text>,
        ended_how -> Nullable<Text>,
        ended_by -> Nullable<Text>,
        ended_hash -> Nullable<Bytea>,
        description -> Text,
        paused_at -> Nullable<Timestamp>,
        paused_by -> Nullable<Text>,
        expires_at -> Nullable<Timestamp>,
        replaces -> Nullable<Int8>,
        stops_at -> Nullable<Timestamp>,
        stops_when_quiet -> Nullable<Int8>,
        senders -> Nullable<Text>,
        recipients -> Nullable<Text>,
        networks -> Nullable<Text>,
    }
}

diesel::table! {
    clock_seen (id) {
        id -> Int8,
        believed_at -> Timestamp,
        odd_at -> Nullable<Timestamp>,
        steady_seconds -> Int8,
    }
}

diesel::table! {
    email_hours (account_id, api_key_id, hour) {
        account_id -> Int8,
        api_key_id -> Int8,
        hour -> Timestamp,
        accepted -> Int8,
    }
}

diesel::table! {
    email_totals (account_id, api_key_id, day, domain_id) {
        account_id -> Int8,
        api_key_id -> Int8,
        day -> Timestamp,
        domain_id -> Int8,
        accepted -> Int8,
    }
}

diesel::table! {
    emails (id) {
        id -> Int8,
        account_id -> Int8,
        api_key_id -> Int8,
        domain_id -> Nullable<Int8>,
        message_id -> Text,
        message -> Nullable<Text>,
        status -> Text,
        created_at -> Timestamp,
        internet_id -> Text,
        attempts -> Int8,
        next_attempt_at -> Timestamp,
        claim -> Nullable<Text>,
        ended_at -> Nullable<Timestamp>,
        remaining -> Nullable<Text>,
        refused -> Nullable<Text>,
        reply -> Nullable<Text>,
        first_attempt_at -> Nullable<Timestamp>,
        sender -> Nullable<Text>,
        recipient -> Nullable<Text>,
        recipients -> Nullable<Int8>,
    }
}

diesel::table! {
    ends_journal (id) {
        id -> Int8,
        journal_id -> Text,
        last -> Int8,
        recovered_at -> Nullable<Timestamp>,
    }
}

diesel::table! {
    ends_unwritten (n) {
        n -> Int8,
        line -> Text,
    }
}

diesel::table! {
    events (id) {
        id -> Int8,
        account_id -> Int8,
        at -> Timestamp,
        actor -> Text,
        address -> Nullable<Text>,
        action -> Text,
        subject_id -> Nullable<Int8>,
        subject -> Text,
        detail -> Text,
    }
}

diesel::table! {
    form_nonces (nonce_hash) {
        nonce_hash -> Bytea,
        user_id -> Int8,
        api_key_id -> Nullable<Int8>,
        created_at -> Timestamp,
        used_at -> Nullable<Timestamp>,
    }
}

diesel::table! {
    login_attempts (counter_hash) {
        counter_hash -> Bytea,
        failures -> Int8,
        next_at -> Timestamp,
    }
}

diesel::table! {
    nodes_secret (id) {
        id -> Int8,
        hash -> Bytea,
    }
}

diesel::table! {
    sending_domains (id) {
        id -> Int8,
        account_id -> Int8,
        name -> Text,
        status -> Text,
        created_at -> Timestamp,
        dkim_public -> Nullable<Text>,
        dkim_private -> Nullable<Bytea>,
        dkim_state -> Text,
        spf_state -> Text,
        dmarc_state -> Text,
        checked_at -> Nullable<Timestamp>,
        next_check_at -> Nullable<Timestamp>,
        missing_since -> Nullable<Timestamp>,
        pending_since -> Nullable<Timestamp>,
        is_attested -> Bool,
        dkim_seen -> Nullable<Text>,
        awaits_record -> Bool,
    }
}

diesel::table! {
    sessions (id_hash) {
        id_hash -> Bytea,
        user_id -> Int8,
        created_at -> Timestamp,
        last_seen_at -> Timestamp,
        address -> Text,
        user_agent -> Text,
    }
}

diesel::table! {
    users (id) {
        id -> Int8,
        account_id -> Int8,
        email -> Text,
        password_hash -> Text,
        role -> Text,
        created_at -> Timestamp,
    }
}

diesel::table! {
    verdict_changes (n) {
        n -> Int8,
        mark -> Bytea,
        account_id -> Int8,
    }
}

diesel::joinable!(api_key_calls -> api_keys (api_key_id));
diesel::joinable!(api_key_domains -> api_keys (api_key_id));
diesel::joinable!(api_key_domains -> sending_domains (domain_id));
diesel::joinable!(api_key_uses -> api_keys (api_key_id));
diesel::joinable!(api_keys -> accounts (account_id));
diesel::joinable!(api_keys -> users (created_by));
diesel::joinable!(email_hours -> accounts (account_id));
diesel::joinable!(email_totals -> accounts (account_id));
diesel::joinable!(emails -> accounts (account_id));
diesel::joinable!(emails -> api_keys (api_key_id));
diesel::joinable!(emails -> sending_domains (domain_id));
diesel::joinable!(events -> accounts (account_id));
diesel::joinable!(form_nonces -> api_keys (api_key_id));
diesel::joinable!(form_nonces -> users (user_id));
diesel::joinable!(sending_domains -> accounts (account_id));
diesel::joinable!(sessions -> users (user_id));
diesel::joinable!(users -> accounts (account_id));

diesel::allow_tables_to_appear_in_same_query!(
    accounts,
    api_key_calls,
    api_key_domains,
    api_key_uses,
    api_keys,
    clock_seen,
    email_hours,
    email_totals,
    emails,
    ends_journal,
    ends_unwritten,
    events,
    form_nonces,
    login_attempts,
    nodes_secret,
    sending_domains,
    sessions,
    users,
    verdict_changes,
);
