//! Counts answers by the pattern of their route and by status. A pattern is a route's address with
//! names for what varies, so that their number is bounded whatever addresses clients ask for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;

use super::log;
use crate::metrics::{Counter, Metrics};

/// For requests that lead to no route.
const NO_ROUTE: &str = "none";
/// How a pattern ends that takes the rest of an address.
const REST: &str = ":.*}";

/// The counters of one serving thread, kept at hand: a request for a route without parameters costs
/// a look into a table, and no memory.
pub struct Answers {
    metrics: Metrics,
    routes: RefCell<Routes>,
}

#[derive(Default)]
struct Routes {
    by_pattern: HashMap<String, Rc<Route>>,
    /// Routes without parameters, by their address.
    by_path: HashMap<String, Rc<Route>>,
    /// Routes that take whatever begins like this.
    by_start: Vec<(String, Rc<Route>)>,
}

struct Route {
    pattern: String,
    by_status: RefCell<Vec<(u16, Counter)>>,
}

/// The outermost middleware: counts the answer if metrics are on, after it was logged.
pub async fn and_log<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let Some(answers) = request.app_data::<Rc<Answers>>().cloned() else {
        return log::in_a_span(request, next).await;
    };
    let route = answers.route_of(&request);
    let outcome = log::in_a_span(request, next).await;
    answers.count(&route, log::status_of(&outcome).as_u16());
    outcome
}

impl Answers {
    /// `None` while metrics are off.
    pub fn new(metrics: &Metrics) -> Option<Rc<Self>> {
        let answers = Self {
            metrics: metrics.clone(),
            routes: RefCell::default(),
        };
        metrics.is_on().then(|| Rc::new(answers))
    }

    fn route_of(&self, request: &ServiceRequest) -> Rc<Route> {
        let path = request.path();
        self.routes
            .borrow_mut()
            .find(path, || request.match_pattern())
    }

    fn count(&self, route: &Route, status: u16) {
        let mut by_status = route.by_status.borrow_mut();
        if let Some((_, counter)) = by_status.iter().find(|(known, _)| *known == status) {
            return counter.inc();
        }
        if let Some(counter) = self.metrics.answers(&route.pattern, status) {
            counter.inc();
            by_status.push((status, counter));
        }
    }
}

impl Routes {
    fn find(&mut self, path: &str, pattern: impl FnOnce() -> Option<String>) -> Rc<Route> {
        if let Some(route) = self.by_path.get(path) {
            return route.clone();
        }
        let mut starts = self.by_start.iter();
        if let Some((_, route)) = starts.find(|(start, _)| path.starts_with(start)) {
            return route.clone();
        }
        let pattern = pattern();
        let pattern = pattern.as_deref().unwrap_or(NO_ROUTE);
        let new = || Route {
            pattern: pattern.to_owned(),
            by_status: RefCell::default(),
        };
        let route = self.by_pattern.entry(pattern.to_owned());
        let route = route.or_insert_with(|| Rc::new(new())).clone();
        if pattern == path {
            self.by_path.insert(pattern.to_owned(), route.clone());
        } else if let Some((start, _)) = pattern.split_once('{')
            && pattern.ends_with(REST)
            && pattern.matches('{').count() == 1
        {
            self.by_start.push((start.to_owned(), route.clone()));
        }
        route
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_under_their_pattern_and_asked_for_as_seldom_as_can_be() {
        let mut routes = Routes::default();
        let mut asked = 0;
        let patterns = [
            ("/v2/verify", Some("/v2/verify")),
            ("/v2/verify/a/b", Some("/v2/verify/{original:.*}")),
            ("/api-keys/7", Some("/api-keys/{id}")),
            ("/static/1/a.css", Some("/static/{version}/{name:.*}")),
            ("/wp-login.php", None),
        ];
        for round in 0..3 {
            for (path, pattern) in patterns {
                let path = path.replace('7', &format!("{round}"));
                let found = routes.find(&path, || {
                    asked += 1;
                    pattern.map(str::to_owned)
                });
                assert_eq!(found.pattern, pattern.unwrap_or("none"));
            }
        }
        assert_eq!(asked, 2 + 3 * 3);
        assert_eq!(routes.by_pattern.len(), 5);
    }
}
