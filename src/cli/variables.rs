//! Variables that look like settings and are none: a misspelt one would leave its setting at the
//! default without a word.

use std::ffi::OsString;

use clap::Args;

use crate::config::Settings;

const PREFIX: &str = "TOSEND_";
/// Variables of the tests.
const TESTS: &str = "TOSEND_TEST_";
/// Up to this many letters of a name may be wrong for another one to be suggested.
const MOST_WRONG: usize = 4;

/// One sentence for each variable of the environment that is not a setting.
pub fn problems(environment: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
    let settings = Settings::augment_args(clap::Command::new("settings"));
    let known: Vec<String> = settings
        .get_arguments()
        .filter_map(|argument| Some(argument.get_env()?.to_string_lossy().into_owned()))
        .collect();
    let mut problems: Vec<String> = environment
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, _)| {
            let capitals = name.to_ascii_uppercase();
            capitals.starts_with(PREFIX) && !capitals.starts_with(TESTS) && !known.contains(name)
        })
        .filter(|(name, value)| !is_of_kubernetes(name, &value.to_string_lossy()))
        .map(|(name, _)| problem(&name, &known))
        .collect();
    problems.sort();
    problems
}

fn problem(name: &str, known: &[String]) -> String {
    let capitals = name.to_ascii_uppercase();
    let nearest = known
        .iter()
        .map(|other| (strsim::damerau_levenshtein(&capitals, other), other))
        .min();
    match nearest {
        Some((wrong, nearest)) if wrong <= MOST_WRONG => {
            format!("{name}: there is no such setting; did you mean {nearest}?")
        }
        _ => format!("{name}: there is no such setting; --help lists them all"),
    }
}

/// Kubernetes gives every container variables for each service, such as one called “tosend”.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_url = value.starts_with("tcp://") || value.starts_with("udp://");
    let numbered = name.split("_PORT_").nth(1);
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT") && is_url
        || numbered.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(variables: &[(&str, &str)]) -> Vec<String> {
        let variables = variables.iter();
        problems(variables.map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn a_misspelt_setting_is_told_with_the_nearest_one() {
        assert_eq!(
            told(&[
                ("TOSEND_LISTEN", "127.0.0.1:80"),
                ("TOSEND_LISTNE", "127.0.0.1:80"),
                ("tosend_public_url", "https://dash.acme.com"),
                ("TOSEND_RETENTION_DAY", "3"),
                ("TOSEND_COLOUR_OF_THE_PAGES", "red"),
                ("PATH", "/bin"),
            ]),
            [
                "TOSEND_COLOUR_OF_THE_PAGES: there is no such setting; --help lists them all",
                "TOSEND_LISTNE: there is no such setting; did you mean TOSEND_LISTEN?",
                "TOSEND_RETENTION_DAY: there is no such setting; did you mean TOSEND_RETENTION_DAYS?",
                "tosend_public_url: there is no such setting; did you mean TOSEND_PUBLIC_URL?",
            ]
        );
    }

    #[test]
    fn variables_of_tests_and_of_kubernetes_are_left_alone() {
        let theirs = [
            ("TOSEND_TEST_POSTGRES", "postgres://x"),
            ("TOSEND_SERVICE_HOST", "10.0.0.1"),
            ("TOSEND_SERVICE_PORT", "80"),
            ("TOSEND_SERVICE_PORT_HTTP", "80"),
            ("TOSEND_PORT", "tcp://10.0.0.1:80"),
            ("TOSEND_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("TOSEND_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("TOSEND_DASHBOARD_SERVICE_HOST", "10.0.0.1"),
        ];
        assert_eq!(told(&theirs), [""; 0]);
        assert_eq!(told(&[("TOSEND_PORT", "8080")]).len(), 1);
    }
}
