//! Which keys a list shows, and in which order, as encoded in its address.

use std::borrow::Cow;

use url::form_urlencoded::{Serializer, parse};

use super::secret::shorten_keys;
use super::standing::KeyStatus;
use crate::accounts::store::AccountStatus;

const MAX_SEARCH_CHARS: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub which: Which,
    /// In lower case; empty: any name.
    pub search: String,
    pub status: Option<StatusFilter>,
    pub domain: Option<DomainFilter>,
    pub sort: Sort,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Live,
    /// Keys that ended in the last 90 days.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusFilter {
    /// Keys with this status.
    Of(KeyStatus),
    Unused,
    Old,
}

/// Which scope a key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainFilter {
    AllDomains,
    /// It includes this domain by name.
    One(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    pub by: Column,
    pub is_descending: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Name,
    Created,
    LastUsed,
    Ended,
}

impl View {
    /// All keys of a kind, the latest first.
    pub fn of(which: Which) -> Self {
        Self {
            which,
            search: String::new(),
            status: None,
            domain: None,
            sort: Sort::usual(which),
        }
    }

    /// Parses the query of an address into a view and a page number. Unknown values are ignored,
    /// because an address may be old or mistyped.
    pub fn parse(query: &str) -> (Self, i64) {
        let value = |wanted: &str| {
            let mut pairs = parse(query.as_bytes()).filter(|(name, _)| name == wanted);
            pairs.next().map_or(Cow::Borrowed(""), |(_, value)| value)
        };
        let which = match &*value("show") {
            "ended" => Which::Ended,
            _ => Which::Live,
        };
        let mut view = Self::of(which);
        let search = shorten_keys(value("q").trim());
        view.search = search.chars().take(MAX_SEARCH_CHARS).collect();
        if which == Which::Live {
            view.status = StatusFilter::parse(&value("status"));
            view.domain = DomainFilter::parse(&value("domain"));
        }
        if let Some(sort) = Sort::parse(&value("sort"), which) {
            view.sort = sort;
        }
        (view, value("page").parse().unwrap_or(1))
    }

    /// The address of one of its pages.
    pub fn path(&self, page: i64) -> String {
        let mut query = Serializer::new(String::new());
        if self.which == Which::Ended {
            query.append_pair("show", "ended");
        }
        if !self.search.is_empty() {
            query.append_pair("q", &self.search);
        }
        if let Some(status) = self.status {
            query.append_pair("status", status.as_str());
        }
        if let Some(domain) = self.domain {
            query.append_pair("domain", &domain.spelled());
        }
        if self.sort != Sort::usual(self.which) {
            query.append_pair("sort", &self.sort.spelled());
        }
        if page > 1 {
            query.append_pair("page", &page.to_string());
        }
        match query.finish() {
            query if query.is_empty() => "/api-keys".to_owned(),
            query => format!("/api-keys?{query}"),
        }
    }

    /// Whether it leaves any keys out.
    pub fn is_filtered(&self) -> bool {
        !self.search.is_empty() || self.status.is_some() || self.domain.is_some()
    }

    /// Whether it is the default: all keys, the latest first.
    pub fn is_usual(&self) -> bool {
        !self.is_filtered() && self.sort == Sort::usual(self.which)
    }

    /// The same view without filters.
    pub fn unfiltered(&self) -> Self {
        Self {
            sort: self.sort,
            ..Self::of(self.which)
        }
    }

    /// Sorted by a column; reversed if it is already sorted by that column.
    pub fn sorted_by(&self, column: &Column) -> Self {
        let is_descending = match self.sort.by == *column {
            true => !self.sort.is_descending,
            false => *column != Column::Name,
        };
        let sort = Sort {
            by: *column,
            is_descending,
        };
        Self {
            sort,
            ..self.clone()
        }
    }

    /// The value of a column's `aria-sort`; none if the list is sorted by another column.
    pub fn aria_sort(&self, column: &Column) -> Option<&'static str> {
        (self.sort.by == *column).then_some(match self.sort.is_descending {
            true => "descending",
            false => "ascending",
        })
    }

    /// Whether a key's name, description or truncated form contains the search text.
    pub fn finds(&self, texts: [&str; 3]) -> bool {
        // Most keyboards have no ellipsis, so people type dots.
        let wanted = self.search.to_lowercase().replace("...", "…");
        texts
            .iter()
            .any(|text| text.to_lowercase().contains(&wanted))
    }
}

impl StatusFilter {
    const ALL: [Self; 8] = [
        Self::Of(KeyStatus::Active),
        Self::Of(KeyStatus::Stopping),
        Self::Of(KeyStatus::Expiring),
        Self::Of(KeyStatus::Paused),
        Self::Of(KeyStatus::DomainNotVerified),
        Self::Of(KeyStatus::AccountPaused),
        Self::Unused,
        Self::Old,
    ];

    /// The statuses that keys of this account can have.
    pub fn offered(account: &AccountStatus) -> impl Iterator<Item = Self> + use<> {
        let is_paused = *account == AccountStatus::Paused;
        let can_be = move |one: &Self| is_paused || *one != Self::Of(KeyStatus::AccountPaused);
        Self::ALL.into_iter().filter(can_be)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Of(KeyStatus::DomainNotVerified) => "not-verified",
            Self::Of(KeyStatus::AccountPaused) => "account-paused",
            Self::Of(status) => status.as_str(),
            Self::Unused => "unused",
            Self::Old => "old",
        }
    }

    pub fn label(self) -> String {
        match self {
            Self::Of(status) => status.to_string(),
            Self::Unused => "Unused for 30 days".to_owned(),
            Self::Old => "Older than 90 days".to_owned(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

impl DomainFilter {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "all" => Some(Self::AllDomains),
            id => id.parse().ok().map(Self::One),
        }
    }

    pub fn spelled(self) -> String {
        match self {
            Self::AllDomains => "all".to_owned(),
            Self::One(id) => id.to_string(),
        }
    }
}

impl Sort {
    fn usual(which: Which) -> Self {
        let by = match which {
            Which::Live => Column::Created,
            Which::Ended => Column::Ended,
        };
        Self {
            by,
            is_descending: true,
        }
    }

    fn parse(text: &str, which: Which) -> Option<Self> {
        let (name, is_descending) = match text.strip_prefix('-') {
            Some(name) => (name, true),
            None => (text, false),
        };
        let by = *Column::of(which).iter().find(|c| c.as_str() == name)?;
        Some(Self { by, is_descending })
    }

    /// A minus means descending.
    pub fn spelled(self) -> String {
        let minus = if self.is_descending { "-" } else { "" };
        format!("{minus}{}", self.by.as_str())
    }

    /// All orders of a list, with the text for people.
    pub fn all(which: Which) -> Vec<(Self, &'static str)> {
        let mut all = Vec::new();
        for by in Column::of(which) {
            let [up, down] = match by {
                Column::Name => ["Name, A to Z", "Name, Z to A"],
                Column::Created => ["Oldest first", "Newest first"],
                Column::LastUsed => ["Longest unused first", "Last used first"],
                Column::Ended => ["First ended first", "Last ended first"],
            };
            for (is_descending, label) in [(true, down), (false, up)] {
                let sort = Self {
                    by: *by,
                    is_descending,
                };
                all.push((sort, label));
            }
        }
        all
    }
}

impl Column {
    fn of(which: Which) -> &'static [Self] {
        match which {
            Which::Live => &[Self::Created, Self::Name, Self::LastUsed],
            Which::Ended => &[Self::Ended, Self::Name, Self::Created, Self::LastUsed],
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Created => "created",
            Self::LastUsed => "used",
            Self::Ended => "ended",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_what_it_was_made_from() {
        for query in [
            "",
            "q=shop+%26+co",
            "status=unused",
            "domain=all",
            "domain=7",
            "sort=name",
            "sort=-used",
            "show=ended",
            "show=ended&sort=-name",
            "q=x&status=active&domain=3&sort=created&page=4",
        ] {
            let (view, page) = View::parse(query);
            let path = view.path(page);
            let again = path.strip_prefix("/api-keys").unwrap();
            assert_eq!(again.strip_prefix('?').unwrap_or(again), query);
            assert_eq!(View::parse(query), (view, page));
        }
    }

    #[test]
    fn what_an_address_cannot_mean_is_left_out() {
        let usual = View::of(Which::Live);
        for query in [
            "q=++",
            "status=evil",
            "domain=x",
            "sort=id",
            "sort=ended",
            "sort=-",
            "sort=-created",
            "page=x",
            "show=all",
        ] {
            assert_eq!(View::parse(query), (usual.clone(), 1), "{query}");
        }
        let (ended, _) = View::parse("show=ended&status=active&domain=1");
        assert_eq!(ended, View::of(Which::Ended));
    }

    #[test]
    fn a_whole_key_is_searched_for_as_it_is_shown() {
        let key = crate::keys::secret::PlainKey::generate();
        let (view, _) = View::parse(&format!("q={}", key.expose()));
        assert_eq!(view.search, key.truncated().to_string());
        assert!(!view.path(1).contains(key.expose()));
    }

    #[test]
    fn names_are_found_in_any_case_and_keys_with_dots() {
        let found = |query: &str| {
            let (view, _) = View::parse(query);
            view.finds(["Über-Shop", "for the till", "tsend_aB…x9Zq"])
        };
        assert!(found("q=ÜBER") && found("q=Till") && found("q=ab...x9") && found(""));
        assert!(!found("q=überall"));
    }
}
