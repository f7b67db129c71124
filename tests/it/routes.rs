//! Every route of the table, asked once: a part of the server that was not registered answers 500.

use crate::support::*;

const TABLE: &str = include_str!("../../src/routes.rs");

/// The method and the path of each route, as the table has them.
fn routes() -> Vec<(&'static str, String)> {
    let (outer, rest) = TABLE.split_once("fn api(").unwrap();
    let (api, pages) = rest.split_once("fn pages(").unwrap();
    let mut routes = Vec::new();
    for (prefix, text) in [("", outer), ("/v2", api), ("", pages)] {
        for route in text.split("resource(\"").skip(1) {
            let (path, rest) = route.split_once('"').unwrap();
            let handlers = rest.split("service(").next().unwrap();
            for (call, method) in [(".get(", "GET"), (".post(", "POST"), (".to(", "PUT")] {
                if handlers.contains(call) {
                    routes.push((method, format!("{prefix}{path}")));
                }
            }
        }
    }
    assert!(routes.len() > 50, "{routes:?}");
    routes
}

#[test]
fn every_route_has_the_parts_that_it_asks_for() {
    let app = App::start(Backend::Sqlite, |_| {});
    let owner = app.owner();
    let domain = owner.add_domain("acme.test");
    let (key, secret) = owner.create_key("Shop", "");
    let program = app.program(&secret);
    let ask = |(method, route): &(&str, String)| {
        let id = match route.starts_with("/domains/") {
            true => domain.clone(),
            false => key.to_string(),
        };
        let path = route
            .replace("{id}", &id)
            .replace("{original:.*}", "x")
            .replace(['{', '}'], "");
        let answer = match path.starts_with("/v2") {
            true => program.send(
                program
                    .with_key(method, &path)
                    .json(&email("hello@acme.test")),
            ),
            false => owner.send(owner.same_origin(method, &path).form(&[("name", "Shop")])),
        };
        assert!(answer.status < 500, "{method} {path}: {}", answer.status);
    };
    // What ends the key or the session comes last.
    let (changing, others): (Vec<_>, Vec<_>) = routes()
        .into_iter()
        .partition(|(method, _)| *method == "POST");
    let (ending, changing): (Vec<_>, Vec<_>) = changing
        .into_iter()
        .partition(|(_, route)| route.ends_with("/delete") || route == "/logout");
    others.iter().chain(&changing).for_each(ask);
    let (logout, deletions): (Vec<_>, Vec<_>) = ending
        .into_iter()
        .partition(|(_, route)| route == "/logout");
    deletions.iter().chain(&logout).for_each(ask);
}
