//! What a relay's refusal concerns: the recipient, the message, or this server.
//!
//! Only a refusal of a recipient or a message is final. A relay that refuses this server, a sender
//! or something by its policy would refuse every email until a person changes its settings or ours,
//! so those emails are retried.

/// The step of the conversation that a reply belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `MAIL FROM`.
    Sender,
    /// `RCPT TO`.
    Recipient,
    /// `DATA`, before the relay has seen the message.
    Data,
    /// After the message.
    Content,
}

/// What a refusal concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Nothing permanent: the email may be accepted later.
    Later,
    /// The recipient, or the message: final.
    Email,
    /// Whether this server or this sender may send through the relay.
    Policy,
    /// This server, whatever the email is.
    Server,
}

/// The second and third number of an enhanced status code (RFC 3463). The first one only repeats
/// the first digit of the reply's code.
type EmailStatus = (u16, u16);

/// Codes with which a relay requires a login or encryption (RFC 4954, 6, RFC 3207, 4).
const ASKS_FOR_LOGIN: [u16; 4] = [530, 534, 535, 538];

/// Phrases about the client or its greeting, which relays use at any step.
const OF_SERVER: [&str; 12] = [
    "client host",
    "helo command rejected",
    "ehlo command rejected",
    "need fully-qualified hostname",
    "invalid helo",
    "helo name",
    "reverse dns",
    "reverse hostname",
    "ptr record",
    "authentication required",
    "authentication is required",
    "must issue a starttls",
];

/// Phrases about what the relay lets through.
const OF_POLICY: [&str; 32] = [
    "relay access denied",
    "relay denied",
    "relaying denied",
    "relay not permitted",
    "relaying not allowed",
    "not permitted to relay",
    "unable to relay",
    "rcpthosts",
    "sender address rejected",
    "sender rejected",
    "sender denied",
    "sender verify failed",
    "sendasdenied",
    "verified sender",
    "not verified",
    "unauthenticated",
    "not authenticated",
    "not authorized",
    "not allowed to send",
    "access denied",
    "blocked using",
    "blacklist",
    "black list",
    "blocklist",
    "block list",
    "spamhaus",
    "rate limit",
    "sending limit",
    "limit exceeded",
    "credits exceeded",
    "quota exceeded",
    "sending quota",
];

/// Phrases about a recipient's mailbox, even with words that other replies use for a sending quota.
const OF_MAILBOX: [&str; 5] = [
    "mailbox",
    "user unknown",
    "no such user",
    "unknown user",
    "over quota",
];

/// What a refusal concerns: decided by its enhanced status code, if that is specific; else by the
/// step of the conversation and the code; in what these leave open, by well-known phrases.
pub fn about(step: Step, code: u16, reply: &str) -> About {
    let words = own_words(reply);
    let says = |list: &[&str]| list.iter().any(|phrase| words.contains(phrase));
    let status = status_of(reply);
    if ASKS_FOR_LOGIN.contains(&code) {
        return About::Server;
    }
    // With a status about addresses, mailboxes or content, the phrases are only quoted.
    if says(&OF_SERVER) && !matches!(status, Some((1 | 2 | 6, _))) {
        return About::Server;
    }
    if code < 500 {
        return About::Later;
    }
    match status {
        // About the sender's address, not the recipient.
        Some((1, 7 | 8)) => About::Policy,
        Some((1 | 2, _)) if step == Step::Sender => About::Policy,
        Some((1, _)) => About::Email,
        // About the mailbox: disabled, full, message too long for it, or a mailing list. Exchange
        // adds others about senders.
        Some((2, 0..=4)) => About::Email,
        // Too big.
        Some((3, 4)) => About::Email,
        // Congestion, which providers use for a sender's daily limit.
        Some((4, 5)) => About::Policy,
        // The recipient's domain cannot be reached, or does not exist.
        Some((4, _)) if step != Step::Sender => About::Email,
        Some((6, _)) => About::Email,
        // No client is accepted without a name in DNS (RFC 7372).
        Some((7, 25)) => About::Server,
        // For content, it also means spam.
        Some((7, 0 | 1 | 7)) if step == Step::Content && !says(&OF_POLICY) => About::Email,
        Some((2..=5 | 7, _)) => About::Policy,
        _ => about_without_status(step, code, says(&OF_POLICY), says(&OF_MAILBOX), &words),
    }
}

fn about_without_status(
    step: Step,
    code: u16,
    says_policy: bool,
    says_mailbox: bool,
    words: &str,
) -> About {
    match (step, code) {
        (Step::Sender, 552) if words.contains("size") || words.contains("too ") => About::Email,
        (Step::Sender | Step::Data, _) => About::Policy,
        (Step::Recipient, _) if says_mailbox => About::Email,
        _ if says_policy => About::Policy,
        // About the mailbox (RFC 5321, 4.2.3), or its domain (RFC 7504).
        (Step::Recipient, 550 | 551 | 553 | 556) => About::Email,
        // 552 also means too many recipients (RFC 5321, 4.5.3.1.10).
        (Step::Recipient, _) => About::Policy,
        (Step::Content, 500..=549) => About::Policy,
        (Step::Content, _) => About::Email,
    }
}

/// The enhanced status code of a reply, after the reply's code: `550 5.1.1 …`, `550-5.1.1 …`, or,
/// in qmail's form, `553 … (#5.7.1)`.
fn status_of(reply: &str) -> Option<EmailStatus> {
    let rest = reply.get(4..).unwrap_or_default();
    let first = rest.split_whitespace().next();
    first.and_then(parse_status).or_else(|| {
        let (_, rest) = reply.split_once("(#")?;
        parse_status(rest.split_once(')')?.0)
    })
}

fn parse_status(word: &str) -> Option<EmailStatus> {
    let mut numbers = word.trim_end_matches([':', ',', ';']).split('.');
    let mut next = || numbers.next()?.parse::<u16>().ok();
    let (class, subject, detail) = (next()?, next()?, next()?);
    (matches!(class, 4 | 5) && numbers.next().is_none()).then_some((subject, detail))
}

/// The relay's own words, in lower case: without addresses, which programs choose, and without what
/// it quotes from another server.
fn own_words(reply: &str) -> String {
    let reply = reply.to_lowercase();
    let reply = reply.split(" said: ").next().unwrap_or_default();
    let mut words = String::new();
    let mut depth = 0_usize;
    for c in reply.chars() {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            c if depth == 0 => words.push(c),
            _ => {}
        }
    }
    let words: Vec<&str> = words
        .split_whitespace()
        .filter(|w| !w.contains('@'))
        .collect();
    words.join(" ")
}

/// A reply fit for the log: without addresses.
pub fn without_addresses(reply: &str) -> String {
    let words = reply.split_whitespace();
    let words: Vec<&str> = words
        .map(|word| if word.contains('@') { "…" } else { word })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::About::*;
    use super::*;

    fn check(step: Step, replies: &[(About, &str)]) {
        for (expected, reply) in replies {
            let code = reply[..3].parse().unwrap();
            assert_eq!(about(step, code, reply), *expected, "{step:?}: {reply}");
        }
    }

    #[test]
    fn a_refusal_of_a_sender_is_put_off() {
        check(
            Step::Sender,
            &[
                // Postfix
                (
                    Server,
                    "504 5.5.2 <tosend>: Helo command rejected: need fully-qualified hostname",
                ),
                (
                    Server,
                    "554 5.7.1 <unknown[192.0.2.1]>: Client host rejected: Access denied",
                ),
                (
                    Server,
                    "450 4.7.1 Client host rejected: cannot find your hostname, [192.0.2.1]",
                ),
                (Server, "530 5.7.0 Must issue a STARTTLS command first"),
                (
                    Policy,
                    "553 5.7.1 <ada@acme.test>: Sender address rejected: not owned by user shop",
                ),
                (
                    Policy,
                    "550 5.1.8 <ada@acme.test>: Sender address rejected: Domain not found",
                ),
                (
                    Policy,
                    "550 5.1.0 <ada@acme.test>: Sender address rejected: Access denied",
                ),
                (
                    Later,
                    "450 4.1.8 <ada@acme.test>: Sender address rejected: Domain not found",
                ),
                (Email, "552 5.3.4 Message size exceeds fixed limit"),
                // Exim
                (Policy, "550 Sender verify failed"),
                (
                    Policy,
                    "550 rejected because 192.0.2.1 is in a black list at zen.spamhaus.org",
                ),
                // Exchange
                (Server, "530 5.7.57 Client not authenticated to send mail"),
                (
                    Policy,
                    "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
                ),
                (Later, "432 4.3.2 Concurrent connections limit exceeded"),
                // Gmail
                (Policy, "550-5.4.5 Daily user sending limit exceeded"),
                (
                    Later,
                    "421 4.7.0 Try again later, closing connection. (MAIL)",
                ),
                // SES, SendGrid, Mailgun
                (Server, "530 Authentication required"),
                (Policy, "550 Unauthenticated senders not allowed"),
                (
                    Policy,
                    "550 The from address does not match a verified Sender Identity.",
                ),
                // Without an enhanced code
                (Policy, "550 quota exceeded"),
                (Policy, "552 quota exceeded"),
                (Email, "552 message size exceeds limit"),
                (Policy, "501 bad address syntax"),
                (Policy, "503 bad sequence of commands"),
                (Policy, "554 transaction failed"),
                (Later, "451 local error in processing"),
                (Later, "451 4.7.1 Greylisted"),
            ],
        );
    }

    #[test]
    fn only_a_refusal_of_the_recipient_itself_is_final() {
        check(
            Step::Recipient,
            &[
                // Postfix, which by default reports here what it objects to about the client
                (
                    Email,
                    "550 5.1.1 <bob@x.test>: Recipient address rejected: User unknown in local recipient table",
                ),
                (
                    Email,
                    "550 5.1.2 <bob@x.test>: Recipient address rejected: Domain not found",
                ),
                (
                    Email,
                    "556 5.1.10 <bob@x.test>: Recipient address rejected: Domain x.test does not accept mail (nullMX)",
                ),
                (
                    Server,
                    "504 5.5.2 <tosend>: Helo command rejected: need fully-qualified hostname",
                ),
                (
                    Server,
                    "554 5.7.1 <unknown[192.0.2.1]>: Client host rejected: Access denied",
                ),
                (
                    Server,
                    "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
                ),
                (
                    Server,
                    "450 4.7.25 Client host rejected: cannot find your reverse hostname, [192.0.2.1]",
                ),
                (Policy, "554 5.7.1 <bob@x.test>: Relay access denied"),
                (Later, "454 4.7.1 <bob@x.test>: Relay access denied"),
                (
                    Policy,
                    "550 5.7.23 <bob@x.test>: Recipient address rejected: Message rejected due to: SPF fail",
                ),
                (
                    Policy,
                    "553 5.7.1 <ada@acme.test>: Sender address rejected: not logged in",
                ),
                (
                    Later,
                    "450 4.2.0 <bob@x.test>: Recipient address rejected: Greylisted",
                ),
                (
                    Later,
                    "450 4.1.1 <bob@x.test>: Recipient address rejected: unverified address",
                ),
                (Later, "452 4.2.2 <bob@x.test>: user is over quota"),
                (Email, "552 5.2.2 <bob@x.test>: user is over quota"),
                (Policy, "552 5.5.3 Error: too many recipients"),
                // Exim
                (Email, "550 Unrouteable address"),
                (Email, "550 No such user here"),
                (Policy, "550 relay not permitted"),
                (Policy, "550 relay not permitted, you are not authenticated"),
                (
                    Server,
                    "550 Access denied - Invalid HELO name (See RFC2821 4.1.1.1)",
                ),
                // Exchange
                (
                    Email,
                    "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
                ),
                (Email, "550 5.4.1 Recipient address rejected: Access denied"),
                (
                    Policy,
                    "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain",
                ),
                (Policy, "550 5.7.1 Unable to relay"),
                (
                    Policy,
                    "550 5.7.606 Access denied, banned sending IP [192.0.2.1]",
                ),
                // Gmail
                (
                    Email,
                    "550-5.1.1 The email account that you tried to reach does not exist.",
                ),
                (
                    Email,
                    "550 5.2.1 The email account that you tried to reach is disabled.",
                ),
                (
                    Policy,
                    "550-5.7.1 Invalid credentials for relay [192.0.2.1].",
                ),
                // qmail
                (
                    Policy,
                    "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
                ),
                (Email, "550 sorry, no mailbox here by that name (#5.1.1)"),
                // Without an enhanced code
                (Policy, "554 transaction failed"),
                (Policy, "550 quota exceeded"),
                (Policy, "552 quota exceeded"),
                (Email, "552 mailbox quota exceeded"),
                (Email, "550 user unknown"),
                (Email, "550"),
                (Email, "551 user not local"),
                (Policy, "503 need MAIL first"),
                (Policy, "521 no mail here"),
                (Later, "450 mailbox busy"),
                // Programs choose the addresses, and other servers the quoted text.
                (Email, "550 <\"client host rejected\"@x.test>: user unknown"),
                (Email, "550 client@host.test unknown"),
                (
                    Email,
                    "550 5.1.1 undeliverable address: Client host rejected",
                ),
                (
                    Email,
                    "550 undeliverable address: host mx.evil.test said: 554 Client host rejected",
                ),
            ],
        );
    }

    #[test]
    fn a_refusal_of_a_message_is_final_unless_it_is_about_the_server() {
        check(
            Step::Content,
            &[
                (Email, "554 5.7.1 No spam here"),
                (
                    Email,
                    "550 5.7.1 Message contains spam or virus or sender is blocked",
                ),
                (Email, "554 5.6.0 Message contains invalid header"),
                (Email, "552 5.3.4 Message file too big"),
                (Email, "552 message too big"),
                (Email, "554 spam"),
                (Email, "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal"),
                (Email, "550 5.1.1 bob@x.test user unknown"),
                // SES
                (
                    Policy,
                    "554 Message rejected: Email address is not verified.",
                ),
                (
                    Policy,
                    "554 Access denied: User is not authorized to perform ses:SendRawEmail",
                ),
                (
                    Later,
                    "454 Throttling failure: Daily message quota exceeded.",
                ),
                (Policy, "554 Daily message quota exceeded"),
                // SendGrid
                (
                    Policy,
                    "550 The from address does not match a verified Sender Identity.",
                ),
                (Later, "451 Authentication failed: Maximum credits exceeded"),
                // Gmail
                (
                    Policy,
                    "550-5.7.26 This mail has been blocked because the sender is unauthenticated.",
                ),
                (
                    Policy,
                    "550-5.7.28 There is an unusual rate of unsolicited mail from your IP address",
                ),
                (
                    Server,
                    "550 5.7.25 The IP address sending this message does not have a PTR record",
                ),
                (Policy, "550 5.4.5 Daily SMTP relay limit exceeded"),
                // Exchange
                (
                    Policy,
                    "554 5.2.252 SendAsDenied; shop@acme.test not allowed to send as ada@acme.test",
                ),
                (
                    Policy,
                    "550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP",
                ),
                (
                    Policy,
                    "550 5.7.705 Access denied, tenant has exceeded threshold",
                ),
                (Later, "451 4.7.500 Server busy"),
            ],
        );
        check(
            Step::Data,
            &[
                (Policy, "554 5.5.1 Error: no valid recipients"),
                (Policy, "503 5.5.1 Bad sequence"),
                (Policy, "550 5.7.1 rejected"),
                (Policy, "554 no"),
                (Later, "451 4.3.0 Later"),
            ],
        );
    }

    #[test]
    fn an_enhanced_code_is_three_numbers_after_the_code() {
        assert_eq!(status_of("550 5.1.1 no"), Some((1, 1)));
        assert_eq!(status_of("550-5.7.26 no"), Some((7, 26)));
        assert_eq!(status_of("550 5.7.606: no"), Some((7, 606)));
        assert_eq!(status_of("553 sorry (#5.7.1)"), Some((7, 1)));
        for none in [
            "",
            "550",
            "550 no 5.1.1",
            "550 5.1",
            "550 5.1.1.1",
            "550 2.1.1",
            "550 192.0.2.1",
        ] {
            assert_eq!(status_of(none), None, "{none}");
        }
    }

    #[test]
    fn the_log_has_no_address() {
        let reply = "554 5.7.1 <bob@x.test>: Relay access denied for ada@acme.test";
        assert_eq!(
            without_addresses(reply),
            "554 5.7.1 … Relay access denied for …"
        );
    }
}
