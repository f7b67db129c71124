//! A panic in a handler is answered with 500, and the connection stays open.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::Error;

/// Returns the answer to a request, or an error instead of a panic, which would close the
/// connection. The panic has already been logged.
pub async fn caught<T>(
    answer: impl Future<Output = Result<T, actix_web::Error>>,
) -> Result<T, actix_web::Error> {
    let answer = AssertUnwindSafe(answer).catch_unwind().await;
    answer.unwrap_or_else(|_| Err(Error::Internal("a handler panicked".to_owned()).into()))
}

#[cfg(test)]
mod tests {
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, init_service};
    use actix_web::{App, HttpResponse, web};

    use crate::http::{api_error, render_errors};

    async fn panics() -> HttpResponse {
        panic!("as the test wants")
    }

    #[actix_web::test]
    async fn a_handler_that_panics_is_answered_in_the_shape_of_its_route() {
        let app = App::new()
            .service(
                web::scope("/v2")
                    .wrap(from_fn(api_error::shape_errors))
                    .route("/panic", web::get().to(panics)),
            )
            .service(
                web::scope("")
                    .wrap(from_fn(render_errors))
                    .route("/panic", web::get().to(panics)),
            );
        let app = init_service(app).await;
        for (path, shape) in [
            ("/v2/panic", r#""error_type":"internal_error""#),
            ("/panic", "Something went wrong on the server."),
        ] {
            let request = TestRequest::get().uri(path).to_request();
            let answer = actix_web::dev::Service::call(&app, request).await;
            let answer = match answer {
                Ok(answer) => answer.into_parts().1.map_into_boxed_body(),
                Err(error) => error.error_response(),
            };
            assert_eq!(answer.status(), 500, "{path}");
            let body = actix_web::body::to_bytes(answer.into_body()).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(body.contains(shape), "{path} {body}");
        }
    }
}
