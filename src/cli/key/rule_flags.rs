//! The flags of a key's rule, such as `--sender` and `--any-sender`: one or two for each of its parts.

use clap::error::Error;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::arguments::parse_allowed;
use crate::keys::rule::{Allowed, PARTS, RuleChange, RulePart};

/// The flags for a new key: what is not given allows anything.
pub type NewRuleFlags = RuleFlags<true>;

/// The flags for an existing key: what is not given stays, and `--any-…` allows anything again.
pub type RuleChangeFlags = RuleFlags<false>;

/// The parts that were given, with the values of their flags; without values: anything.
#[derive(Debug)]
pub struct RuleFlags<const IS_NEW: bool>(Vec<(&'static RulePart, Vec<Allowed>)>);

impl<const IS_NEW: bool> RuleFlags<IS_NEW> {
    /// # Errors
    /// A part's values are too many together.
    pub fn change(&self) -> Result<RuleChange, String> {
        let mut change = RuleChange::default();
        for (part, values) in &self.0 {
            let allowed = Allowed::joined(values).map_err(|why| why.to_string())?;
            change.set(part, allowed);
        }
        Ok(change)
    }
}

impl<const IS_NEW: bool> Args for RuleFlags<IS_NEW> {
    fn augment_args(command: Command) -> Command {
        match IS_NEW {
            true => command.args(PARTS.map(|part| {
                let help = format!("{} [default: {}]", help(part), part.anything);
                list_arg(part).help(help)
            })),
            false => command.args(PARTS.into_iter().flat_map(|part| {
                let list = list_arg(part).help(help(part));
                [list.conflicts_with(part.any_flag), any_arg(part)]
            })),
        }
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn list_arg(part: &'static RulePart) -> Arg {
    Arg::new(part.flag)
        .long(part.flag)
        .value_name(part.value_name)
        .value_parser(|text: &str| parse_allowed(part, text))
        .action(ArgAction::Append)
}

fn help(part: &RulePart) -> String {
    format!(
        "Allow only emails {} {}; repeat for more",
        part.way, part.one
    )
}

fn any_arg(part: &RulePart) -> Arg {
    Arg::new(part.any_flag)
        .long(part.any_flag)
        .action(ArgAction::SetTrue)
        .help(format!("Allow emails {} {}", part.way, part.anything))
}

impl<const IS_NEW: bool> FromArgMatches for RuleFlags<IS_NEW> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = PARTS.into_iter().filter_map(|part| {
            let is_any = !IS_NEW && matches.get_flag(part.any_flag);
            match matches.get_many::<Allowed>(part.flag) {
                Some(values) => Some((part, values.cloned().collect())),
                None => is_any.then(|| (part, Vec::new())),
            }
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
