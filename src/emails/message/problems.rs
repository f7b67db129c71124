//! The errors in an email, reported together.

use std::borrow::Cow;

/// The errors in an email, in the order of its fields.
#[derive(Debug, Default, PartialEq)]
pub struct Problems(Vec<Problem>);

#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub field: &'static str,
    pub code: &'static str,
    pub sentence: Cow<'static, str>,
}

impl Problems {
    /// The one sentence for clients that show only that.
    pub fn headline(&self) -> Cow<'static, str> {
        match self.0.first() {
            Some(Problem {
                field: "subject" | "content",
                code: "required",
                ..
            }) => "Subject and either html or text content are required.".into(),
            Some(problem) => problem.sentence.clone(),
            None => "The email is not valid.".into(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn tell(
        &mut self,
        field: &'static str,
        code: &'static str,
        sentence: impl Into<Cow<'static, str>>,
    ) {
        self.0.push(Problem {
            field,
            code,
            sentence: sentence.into(),
        });
    }
}
