//! The network between the server and PostgreSQL, or a gateway and the server; tests can make it
//! fail.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// Forwards bytes, unless told otherwise.
pub struct Proxy {
    pub address: SocketAddr,
    network: Arc<Network>,
    thread: Option<JoinHandle<()>>,
}

struct Network {
    database: String,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mode: Mode,
    open: Vec<TcpStream>,
    /// How many more bytes from the database are forwarded before the next cut.
    left: Option<usize>,
    /// After this text nothing is forwarded any more.
    hold: Option<&'static str>,
    cuts: usize,
    connections: usize,
    /// Connections of earlier generations no longer forward anything.
    generation: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    Swallow,
    Refuse,
    Over,
}

impl Proxy {
    pub fn to(database: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let network = Arc::new(Network {
            database: database.to_owned(),
            state: Mutex::new(State {
                mode: Mode::Pass,
                open: Vec::new(),
                left: None,
                hold: None,
                cuts: 0,
                connections: 0,
                generation: 0,
            }),
            changed: Condvar::new(),
        });
        let theirs = network.clone();
        Self {
            address,
            network,
            thread: Some(std::thread::spawn(move || theirs.accept(&listener))),
        }
    }

    /// Closes all connections.
    pub fn cut(&self) {
        self.network.state().cut();
    }

    /// Closes all connections after this many more bytes from the database, usually in the middle
    /// of an answer.
    pub fn cut_after(&self, bytes: usize) {
        self.network.state().left = Some(bytes);
    }

    /// Stops forwarding once this text has come from the database, and holds back whatever follows.
    pub fn hold_after(&self, text: &'static str) {
        self.network.state().hold = Some(text);
    }

    /// Whether that has happened.
    pub fn is_holding(&self) -> bool {
        self.network.state().mode == Mode::Swallow
    }

    /// How many connections were closed in the middle.
    pub fn cuts(&self) -> usize {
        self.network.state().cuts
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        self.network.state().connections
    }

    /// Keeps connections and accepts new ones, but forwards nothing.
    pub fn swallow(&self) {
        self.network.change(Mode::Swallow);
    }

    /// Keeps the existing connections but never forwards anything on them again; new ones work
    /// normally.
    pub fn forget(&self) {
        self.network.state().generation += 1;
    }

    /// Closes all connections, and new ones immediately.
    pub fn refuse(&self) {
        self.network.change(Mode::Refuse);
        self.cut();
    }

    /// Works normally again; held-back bytes arrive.
    pub fn restore(&self) {
        self.network.change(Mode::Pass);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.network.change(Mode::Over);
        self.cut();
        // Wakes the accepting thread.
        drop(TcpStream::connect(self.address));
        let _ = self.thread.take().unwrap().join();
    }
}

impl Network {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self, mode: Mode) {
        self.state().mode = mode;
        self.changed.notify_all();
    }

    /// Waits while nothing is forwarded, and then returns the state.
    fn passable(&self, generation: usize) -> MutexGuard<'_, State> {
        let state = self.state();
        let is_blocked = |state: &mut State| match state.mode {
            Mode::Pass => state.generation != generation,
            Mode::Swallow => true,
            Mode::Refuse | Mode::Over => false,
        };
        self.changed.wait_while(state, is_blocked).unwrap()
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for server in listener.incoming() {
            let mode = self.state().mode;
            match (mode, server) {
                (Mode::Over, _) => return,
                (Mode::Refuse, _) | (_, Err(_)) => {}
                (Mode::Pass | Mode::Swallow, Ok(server)) => {
                    let network = self.clone();
                    std::thread::spawn(move || network.connect(server));
                }
            }
        }
    }

    fn connect(self: Arc<Self>, server: TcpStream) -> Option<()> {
        let mut state = self.state();
        let generation = state.generation;
        state.connections += 1;
        state.open.push(server.try_clone().ok()?);
        drop(state);
        if self.passable(generation).mode != Mode::Pass {
            return None;
        }
        let Ok(database) = TcpStream::connect(&self.database) else {
            // Like the database: no connection.
            return server.shutdown(Shutdown::Both).ok();
        };
        for stream in [&server, &database] {
            stream.set_nodelay(true).ok()?;
        }
        self.state().open.push(database.try_clone().ok()?);
        let (from, to) = (server.try_clone().ok()?, database.try_clone().ok()?);
        let network = self.clone();
        std::thread::spawn(move || network.carry(from, to, generation, false));
        self.carry(database, server, generation, true);
        Some(())
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream, generation: usize, is_answer: bool) {
        let mut bytes = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            let mut state = self.passable(generation);
            // Bytes that were held back until the end never arrive.
            if state.mode != Mode::Pass {
                break;
            }
            let cut = state.left.filter(|left| is_answer && *left < length);
            if is_answer {
                state.left = state
                    .left
                    .filter(|_| cut.is_none())
                    .map(|left| left - length);
            }
            let mut begun = 0;
            if is_answer
                && let Some(text) = state.hold
                && let Some(end) = end_of(text, &bytes[..length])
            {
                state.hold = None;
                state.mode = Mode::Swallow;
                drop(state);
                begun = end;
                if to.write_all(&bytes[..end]).is_err() {
                    break;
                }
                state = self.passable(generation);
                if state.mode != Mode::Pass {
                    break;
                }
            }
            // Without the lock, so that other connections continue while this one's reader is slow.
            drop(state);
            let is_written = to.write_all(&bytes[begun..cut.unwrap_or(length)]).is_ok();
            if cut.is_some() {
                let mut state = self.state();
                state.cut();
                state.cuts += 1;
            }
            if cut.is_some() || !is_written {
                break;
            }
        }
        for stream in [from, to] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn end_of(text: &str, bytes: &[u8]) -> Option<usize> {
    let mut windows = bytes.windows(text.len());
    Some(windows.position(|window| window == text.as_bytes())? + text.len())
}

impl State {
    fn cut(&mut self) {
        for stream in self.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
