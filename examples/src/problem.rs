use std::fmt;

use axum::Json;
use axum::extract::rejection::{FormRejection, JsonRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::{StoreError, TargetError, page};

/// What went wrong with a request, as its sender is told: a status and one
/// sentence, written as `{"error": "…"}`.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    message: String,
}

impl Problem {
    /// Answers `status` with a sentence for whoever sent the request.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Answers as JSON, or as a page where `html` is set, with the id under
    /// which the request is in the logs.
    pub(crate) fn answer(&self, html: bool, request_id: Option<&str>) -> Response {
        if html {
            return (self.status, page::problem(self, request_id)).into_response();
        }
        let mut body = json!({ "error": self.message });
        if let Some(id) = request_id {
            body["request_id"] = id.into();
        }
        (self.status, Json(body)).into_response()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.answer(false, None);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // The answer that is sent is made from this: it knows who asks.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<TargetError> for Problem {
    fn from(error: TargetError) -> Self {
        let message = match &error {
            TargetError::NotAUrl(cause) => format!("{error}: {cause}"),
            _ => error.to_string(),
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the database failed"
        );
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not answer; try again in a moment",
        )
    }
}

/// The extractors' own refusals carry a good status and sentence already.
macro_rules! from_rejection {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for Problem {
            fn from(rejection: $rejection) -> Self {
                Self::new(rejection.status(), rejection.body_text())
            }
        }
    )*};
}
from_rejection!(FormRejection, JsonRejection, QueryRejection);
