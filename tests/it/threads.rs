//! A background thread that panics is logged, started again, and named by `/readyz` meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tosend_dashboard::background::{BackgroundThread, Parts};

use crate::support::*;

both! {
    fn readiness_names_the_part_that_is_down(app: App) {
        let mut parts = Parts::default();
        let node = App::altered(app.database.again(), |components| parts = Parts::clone(&components.parts));
        let ready = || {
            let answer = node.visitor().get("/readyz");
            (answer.status, answer.body)
        };
        assert_eq!(ready(), (200, "ready\n".to_owned()));

        let is_broken = Arc::new(AtomicBool::new(true));
        let starts = Arc::new(AtomicU32::new(0));
        let (broken, counted) = (is_broken.clone(), starts.clone());
        let work = move |stop: mpsc::Receiver<()>| {
            counted.fetch_add(1, Ordering::SeqCst);
            if broken.load(Ordering::SeqCst) {
                panic!("as the test wants");
            }
            let _ = stop.recv();
        };
        let thread = BackgroundThread::start("a part", &parts, work).unwrap();
        until("it is named", || {
            let (status, text) = ready();
            status == 503 && text.starts_with("a part is down: it is started again in ")
        });
        until("it is started again and again", || starts.load(Ordering::SeqCst) >= 3);
        is_broken.store(false, Ordering::SeqCst);
        until("all is well again", || ready() == (200, "ready\n".to_owned()));
        assert!(thread.end(Duration::from_secs(60)));
    }
}
