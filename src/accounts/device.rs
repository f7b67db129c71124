//! The device a person is signed in on, as far as its headers show.

use std::fmt;

/// Where a session was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Empty: unknown.
    pub address: String,
    /// The browser's User-Agent, cut to 200 bytes; empty if it sends none.
    pub user_agent: String,
}

/// Browsers also name the browsers they are compatible with, so the first match in this order
/// counts.
const BROWSERS: [(&str, &str); 13] = [
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("OPR/", "Opera"),
    ("OPT/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Vivaldi/", "Vivaldi"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Chromium/", "Chrome"),
    ("Safari/", "Safari"),
];

/// In order, too: an iPhone says "like Mac OS X", and Android also says Linux.
const SYSTEMS: [(&str, &str); 8] = [
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Macintosh", "Mac"),
    ("Linux", "Linux"),
    ("X11", "Unix"),
];

impl Device {
    /// A name for people: `Firefox on Linux`.
    pub fn name(&self) -> String {
        let find = |known: &[(&str, &'static str)]| {
            let mut known = known.iter();
            let found = known.find(|(token, _)| self.user_agent.contains(token));
            found.map(|(_, name)| *name)
        };
        match (find(&BROWSERS), find(&SYSTEMS)) {
            (Some(browser), Some(system)) => format!("{browser} on {system}"),
            _ => "Unknown device".to_owned(),
        }
    }
}

/// Distinguishes devices of the same kind: `Firefox on Linux at 192.0.2.1`.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        match self.address.as_str() {
            "" => Ok(()),
            address => write!(f, " at {address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(user_agent: &str, address: &str) -> Device {
        Device {
            address: address.to_owned(),
            user_agent: user_agent.to_owned(),
        }
    }

    #[test]
    fn browsers_are_told_apart_by_how_they_call_themselves() {
        for (user_agent, name) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                "Firefox on Linux",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:140.0) Gecko/20100101 \
                 Firefox/140.0",
                "Firefox on Mac",
            ),
            (
                "Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0",
                "Firefox on Android",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 \
                 (KHTML, like Gecko) FxiOS/140.0 Mobile/15E148 Safari/605.1.15",
                "Firefox on iPhone",
            ),
            (
                "Mozilla/5.0 (X11; OpenBSD amd64; rv:140.0) Gecko/20100101 Firefox/140.0",
                "Firefox on Unix",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/138.0.0.0 Safari/537.36",
                "Chrome on Windows",
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/138.0.0.0 Mobile Safari/537.36",
                "Chrome on Android",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 \
                 (KHTML, like Gecko) CriOS/138.0.7204.33 Mobile/15E148 Safari/604.1",
                "Chrome on iPhone",
            ),
            (
                "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/138.0.0.0 Safari/537.36",
                "Chrome on ChromeOS",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 \
                 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like \
                 Gecko) Version/17.7 Mobile/15E148 Safari/604.1",
                "Safari on iPad",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, \
                 like Gecko) Version/18.5 Safari/605.1.15",
                "Safari on Mac",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/138.0.0.0 Safari/537.36 Edg/138.0.3351.55",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; HD1913) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/137.0.7151.115 Mobile Safari/537.36 EdgA/137.0.3296.65",
                "Edge on Android",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like \
                 Gecko) Chrome/135.0.0.0 Safari/537.36 OPR/120.0.0.0",
                "Opera on Mac",
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) \
                 SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
                "Samsung Internet on Android",
            ),
            ("curl/8.14.1", "Unknown device"),
            ("python-requests/2.32.4", "Unknown device"),
            ("Mozilla/5.0 (X11; Linux x86_64)", "Unknown device"),
            ("Firefox/140.0", "Unknown device"),
            ("", "Unknown device"),
        ] {
            assert_eq!(device(user_agent, "").name(), name, "{user_agent}");
        }
    }

    #[test]
    fn two_of_a_kind_differ_by_their_address() {
        let told = |address| device("curl/8.14.1", address).to_string();
        assert_eq!(told("192.0.2.1"), "Unknown device at 192.0.2.1");
        assert_eq!(told(""), "Unknown device");
    }
}
