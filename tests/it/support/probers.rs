//! Programs that present keys continuously, whatever happens to the database meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::{Answer, Program, until};

/// This many verdicts show that nothing blocks verification.
const UNBROKEN: usize = 100;

/// Whether a prober's key works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Good,
    Bad,
}

impl Key {
    pub fn verdict(self) -> u16 {
        match self {
            Self::Good => 200,
            Self::Bad => 403,
        }
    }
}

pub struct Probers {
    tally: Arc<Tally>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Tally {
    is_over: AtomicBool,
    answers: Mutex<BTreeMap<(Key, u16), usize>>,
    /// Verdicts since the server last had none.
    unbroken: Mutex<BTreeMap<Key, usize>>,
    /// Answers that should not have occurred.
    wrong: Mutex<Vec<String>>,
}

impl Probers {
    /// One thread for each program, until `end`.
    pub fn start(programs: Vec<(Key, Program)>) -> Self {
        let tally = Arc::new(Tally::default());
        let start = |(key, program)| {
            let tally = tally.clone();
            std::thread::spawn(move || tally.probe(key, &program))
        };
        Self {
            threads: programs.into_iter().map(start).collect(),
            tally,
        }
    }

    /// Waits until a key of each kind has got this answer, after now.
    pub fn see(&self, answers: &[(Key, u16)]) {
        let before = self.tally.answers.lock().unwrap().clone();
        until(&format!("{answers:?}"), || {
            self.tally.assert_all_right();
            let now = self.tally.answers.lock().unwrap();
            answers
                .iter()
                .all(|answer| now.get(answer) > before.get(answer))
        });
    }

    /// Waits until verdicts have been given, after now.
    pub fn see_verdicts(&self) {
        self.see(&[Key::Good, Key::Bad].map(|key| (key, key.verdict())));
    }

    /// Waits until very many verdicts have been given, after now, with none missing between the
    /// first and the last. On a busy machine, single ones may come too late.
    pub fn see_verdicts_unbroken(&self) {
        self.tally.unbroken.lock().unwrap().clear();
        until("verdicts keep coming", || {
            self.tally.assert_all_right();
            let unbroken = self.tally.unbroken.lock().unwrap();
            let is_enough = |key| unbroken.get(key).is_some_and(|count| *count >= UNBROKEN);
            [Key::Good, Key::Bad].iter().all(is_enough)
        });
    }

    /// Waits until the server has answered that it has no verdict, after now.
    pub fn see_unavailable(&self) {
        self.see(&[(Key::Good, 503), (Key::Bad, 503)]);
    }

    /// Returns how often the server answered that it has no verdict.
    pub fn end(mut self) -> usize {
        self.finish();
        self.tally.assert_all_right();
        let answers = self.tally.answers.lock().unwrap();
        let unavailable = |key| answers.get(&(key, 503)).copied().unwrap_or(0);
        unavailable(Key::Good) + unavailable(Key::Bad)
    }

    fn finish(&mut self) {
        self.tally.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Probers {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Tally {
    fn probe(&self, key: Key, program: &Program) {
        while !self.is_over.load(Ordering::SeqCst) {
            let Some(answer) = program.try_verify() else {
                self.note(key, "was not answered");
                continue;
            };
            if !is_allowed(key, &answer) {
                self.note(
                    key,
                    &format!("was answered {} {}", answer.status, answer.body),
                );
            }
            let mut answers = self.answers.lock().unwrap();
            *answers.entry((key, answer.status)).or_default() += 1;
            let mut unbroken = self.unbroken.lock().unwrap();
            match answer.status {
                503 => unbroken.clear(),
                _ => *unbroken.entry(key).or_default() += 1,
            }
        }
    }

    fn note(&self, key: Key, what: &str) {
        self.wrong
            .lock()
            .unwrap()
            .push(format!("a {key:?} key {what}"));
    }

    fn assert_all_right(&self) {
        let wrong = self.wrong.lock().unwrap().clone();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

/// The right verdict, or no verdict at the moment: never the wrong one.
fn is_allowed(key: Key, answer: &Answer) -> bool {
    let seconds = answer
        .header("retry-after")
        .and_then(|s| s.parse::<u32>().ok());
    answer.status == key.verdict() || answer.status == 503 && seconds.is_some()
}
