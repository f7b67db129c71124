//! Writes log lines to stderr. Logging never fails and never waits, because the reader of stderr
//! may be gone or stuck, or its disk full. One thread writes; lines that do not fit into its buffer
//! meanwhile, or cannot be written, are dropped, counted, and reported once a line can be written
//! again.
//!
//! What fails again and again is summed up: what this server tries itself ([`Outage`]), and all else
//! ([`repeats`]).

mod outage;
mod repeats;

use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Write, stderr};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use self::outage::Outage;
use self::repeats::Repeats;

/// Size of the buffer for lines that wait to be written.
const BUFFER_BYTES: usize = 1024 * 1024;
/// How long a panic or the end of the process waits for unwritten lines.
const FLUSH: Duration = Duration::from_secs(1);
/// How often a stderr that another program made non-blocking is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// The form of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    /// An object for each line.
    Json,
}

/// The log's way to stderr; clones share it.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    changed: Condvar,
    /// Set once this is the log of everything.
    repeats: OnceLock<Repeats>,
}

#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    is_writing: bool,
    /// Lines that were dropped and not reported yet.
    lost: usize,
}

impl Log {
    pub fn to_stderr() -> Self {
        // Not std's own handle: its lock would be held while a write blocks, and so block other
        // threads.
        match stderr().as_fd().try_clone_to_owned() {
            Ok(fd) => Self::to(File::from(fd)),
            Err(_) => Self::to(stderr()),
        }
    }

    fn to(out: impl Write + Send + 'static) -> Self {
        let shared = Arc::<Shared>::default();
        let ours = shared.clone();
        // If the thread cannot start, all lines are lost, but the server can still serve.
        let _ = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || ours.keep_writing(out));
        Self(shared)
    }

    /// Makes this the log of everything the process traces, and of panics.
    pub fn take_all(&self, filter: &str, format: Format) {
        let repeats = self.0.repeats.get_or_init(Repeats::default).clone();
        let lines = tracing_subscriber::fmt()
            .with_writer(self.clone())
            .log_internal_errors(false)
            .with_ansi(stderr().is_terminal())
            .with_env_filter(EnvFilter::new(filter));
        match format {
            Format::Text => lines
                .map_writer(|log| move || OneLine(log.make_writer()))
                .finish()
                .with(repeats.clone())
                .init(),
            Format::Json => lines
                .json()
                .flatten_event(true)
                .with_span_list(false)
                .finish()
                .with(repeats.clone())
                .init(),
        }
        // Without it, totals come at the end only.
        let _ = std::thread::Builder::new()
            .name("log totals".to_owned())
            .spawn(move || repeats.keep_summing_up());
        let log = self.clone();
        std::panic::set_hook(Box::new(move |panic| {
            log_panic(panic);
            // The process may be about to end.
            log.flush();
        }));
    }

    /// Writes a line as it is, regardless of the filter.
    pub fn line(&self, line: impl Display) {
        self.0.push(format!("{line}\n").as_bytes());
    }

    /// At the end of the process: sums up what was not written, and waits until all is.
    pub fn end(&self) {
        if let Some(repeats) = self.0.repeats.get() {
            repeats.end();
        }
        self.flush();
    }

    /// Waits, for a limited time, until everything is written.
    pub fn flush(&self) {
        let buffer = self.0.lock();
        let is_busy = |buffer: &mut Buffer| buffer.is_writing || !buffer.lines.is_empty();
        let _ = self.0.changed.wait_timeout_while(buffer, FLUSH, is_busy);
    }
}

/// Checks a level or filter more strictly than tracing does, which takes every word that is no level
/// for the name of a crate, and then logs next to nothing.
///
/// # Errors
/// One sentence.
pub fn check_filter(filter: &str) -> Result<(), String> {
    let levels = "error, warn, info, debug, trace or off";
    let mut parts = filter.split(',').map(str::trim);
    let is_wrong = |part: &&str| {
        !part.is_empty() && !part.contains(['=', '[', ':']) && part.parse::<LevelFilter>().is_err()
    };
    if let Some(part) = parts.find(is_wrong) {
        return Err(format!(
            "“{part}” is not a level ({levels}); for a part of the server, write part=level"
        ));
    }
    if filter.trim().is_empty() {
        return Err(format!("it is empty: name a level ({levels})"));
    }
    EnvFilter::try_new(filter)
        .map(drop)
        .map_err(|_| format!("“{filter}” is not a level ({levels}) or filter (part=level,…)"))
}

/// Never logs a formatted panic message: it may quote the data being processed, such as a key.
fn log_panic(panic: &PanicHookInfo) {
    let thread = std::thread::current();
    let location = panic.location().map(ToString::to_string);
    tracing::error!(
        thread = thread.name().unwrap_or("without a name"),
        at = location.as_deref().unwrap_or("an unknown place"),
        why = panic.payload().downcast_ref::<&'static str>(),
        "a thread panicked"
    );
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, lines: &[u8]) {
        let mut buffer = self.lock();
        if buffer.lines.len() + lines.len() > BUFFER_BYTES {
            buffer.lost += count(lines);
            return;
        }
        buffer.lines.extend_from_slice(lines);
        drop(buffer);
        self.changed.notify_all();
    }

    fn keep_writing(&self, mut out: impl Write) {
        let mut is_torn = false;
        loop {
            let lines = self.next();
            let written = write(&mut out, &lines, is_torn);
            if written > 0 {
                is_torn = lines[written - 1] != b'\n';
            }
            let mut buffer = self.lock();
            buffer.is_writing = false;
            buffer.lost += count(&lines[written..]);
            let lost = match written == lines.len() {
                true => std::mem::take(&mut buffer.lost),
                false => 0,
            };
            drop(buffer);
            if lost > 0 {
                tracing::warn!(lines = lost, "log lines could not be written and are lost");
            }
            self.changed.notify_all();
        }
    }

    /// Waits for lines and takes all of them.
    fn next(&self) -> Vec<u8> {
        let buffer = self.lock();
        let is_empty = |buffer: &mut Buffer| buffer.lines.is_empty();
        let mut buffer = self
            .changed
            .wait_while(buffer, is_empty)
            .unwrap_or_else(PoisonError::into_inner);
        buffer.is_writing = true;
        std::mem::take(&mut buffer.lines)
    }
}

/// Returns how many bytes of the lines were written. `is_torn`: the previous write ended in the
/// middle of a line.
fn write(out: &mut impl Write, lines: &[u8], is_torn: bool) -> usize {
    if is_torn && write_whole(out, b"\n") == 0 {
        return 0;
    }
    write_whole(out, lines)
}

fn write_whole(out: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY),
            Err(_) => break,
        }
    }
    written
}

fn count(lines: &[u8]) -> usize {
    lines.iter().filter(|byte| **byte == b'\n').count()
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Write for Log {
    fn write(&mut self, lines: &[u8]) -> std::io::Result<usize> {
        self.0.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes each event as one line, whatever an error of a database says in several.
struct OneLine(Log);

impl Write for OneLine {
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
        let mut line: Vec<u8> = text
            .iter()
            .map(|byte| match byte {
                b'\n' | b'\r' => b' ',
                byte => *byte,
            })
            .collect();
        line.push(b'\n');
        self.0.0.push(&line);
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A writer whose results the test decides, and what was written to it.
    struct Played {
        answers: Receiver<std::io::Result<usize>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Played {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let answer = self.answers.recv().unwrap_or(Ok(usize::MAX));
            let count = answer?.min(bytes.len());
            let _ = self.written.send(bytes[..count].to_vec());
            Ok(count)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn played() -> (Log, Sender<std::io::Result<usize>>, Receiver<Vec<u8>>) {
        let (answer, answers) = channel();
        let (written, read) = channel();
        (Log::to(Played { answers, written }), answer, read)
    }

    fn next(read: &Receiver<Vec<u8>>) -> String {
        let bytes = read.recv_timeout(Duration::from_secs(60)).expect("a write");
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_crate() {
        for right in [
            "info",
            "WARN",
            "off",
            "info,actix_server=warn",
            "actix_web::x",
            "[a]=info",
            "info,",
        ] {
            assert_eq!(check_filter(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "inof",
            "verbose",
            "info,warning",
            "actix=loud",
            "a=b=c",
            "7",
        ] {
            assert!(check_filter(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_event_of_several_lines_is_one_line() {
        let (log, answer, read) = played();
        drop(answer);
        let mut line = OneLine(log);
        line.write_all(b"failed: connection refused\n\tIs it running?\r\n")
            .unwrap();
        assert_eq!(
            next(&read),
            "failed: connection refused \tIs it running? \n"
        );
    }

    #[test]
    fn a_failed_write_tears_no_later_line() {
        let (log, answer, read) = played();
        log.line("one");
        answer.send(Ok(2)).unwrap();
        answer.send(Err(ErrorKind::StorageFull.into())).unwrap();
        assert_eq!(next(&read), "on");
        log.line("two");
        answer.send(Err(ErrorKind::WouldBlock.into())).unwrap();
        drop(answer);
        assert_eq!(next(&read), "\n");
        assert_eq!(next(&read), "two\n");
        log.flush();
        assert!(log.0.lock().lines.is_empty());
    }

    #[test]
    fn a_stuck_reader_stops_nobody_and_takes_up_a_bounded_memory() {
        let (log, answer, read) = played();
        let long = "x".repeat(1_000);
        for _ in 0..3_000 {
            log.line(&long);
        }
        let buffer = log.0.lock();
        assert!(buffer.lines.len() <= BUFFER_BYTES);
        assert!(buffer.lost > 900, "{}", buffer.lost);
        drop(buffer);
        drop(answer);
        log.flush();
        assert!(read.try_iter().all(|bytes| bytes.ends_with(b"x\n")));
    }
}
