//! Extractors of request bodies, queries and headers.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use url::form_urlencoded;
use utoipa::IntoParams;

use super::problem::Problem;
use snapdeck_model::SnapshotName;

pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_KEY_BYTES: usize = 255;
/// Characters of an unknown parameter's name in its error.
const MAX_SHOWN_CHARS: usize = 64;

/// A JSON body whatever its content type: existing callers send none, and curl adds that of a form.
pub(crate) struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        parse(&read_body(request, state).await?).map(Self)
    }
}

/// A [`JsonBody`] that may be empty.
pub(crate) struct OptionalJsonBody<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let text = read_body(request, state).await?;
        match text.trim_ascii().is_empty() {
            true => Ok(Self(T::default())),
            false => parse::<Option<T>>(&text).map(|form| Self(form.unwrap_or_default())),
        }
    }
}

/// The body of a call without parameters: empty, or an empty object.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoFields {}

pub(crate) fn default_true() -> bool {
    true
}

/// Accepts 2.0 as 2 (JSON Schema, "integer").
pub(crate) fn deserialize_whole_number<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(from)? else {
        return Ok(None);
    };
    // Each u32 has an exact f64.
    match number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
        true => Ok(Some(number as u32)),
        false => Err(D::Error::custom(format!(
            "{number} is not a whole number from 0 to {}",
            u32::MAX
        ))),
    }
}

/// Refuses a query: a caller that passes parameters means something that the call does not do.
pub(crate) struct NoQuery;

impl<S: Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        match form_urlencoded::parse(query.as_bytes()).next() {
            None => Ok(Self),
            Some((name, _)) => Err(unknown_parameter(&name)),
        }
    }
}

fn unknown_parameter(name: &str) -> Problem {
    let name: String = name.chars().take(MAX_SHOWN_CHARS).collect();
    Problem::invalid_input(format!("unknown parameter {name:?}"))
}

async fn read_body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::payload_too_large(MAX_BODY_BYTES),
            _ => Problem::invalid_input(format!(
                "cannot read the request body: {}",
                error.body_text()
            )),
        }),
        Err(_) => Err(Problem::request_timeout()),
    }
}

/// Parses a JSON object; the error names the field.
fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    // The values of an array would be taken for the fields in their order.
    if text.trim_ascii().starts_with(b"[") {
        return Err(Problem::invalid_input(
            "invalid body: it is an array; a JSON object is required",
        ));
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let cause = error.into_inner();
        let position = format!(" at line {} column {}", cause.line(), cause.column());
        let cause = cause.to_string();
        Problem::invalid_input(match field.as_str() {
            _ if text.trim_ascii().is_empty() => {
                "the body is empty; a JSON object is required".into()
            }
            "." => format!("invalid body: {cause}"),
            // The field name replaces the position.
            field => format!(
                "{field}: {}",
                cause.strip_suffix(&position).unwrap_or(&cause)
            ),
        })
    })?;
    json.end()
        .map_err(|error| Problem::invalid_input(format!("invalid body: {error}")))?;
    Ok(value)
}

/// `?snapshot=NAME`.
pub(crate) struct SnapshotQuery(pub SnapshotName);

impl<S: Sync> FromRequestParts<S> for SnapshotQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let parameters = || form_urlencoded::parse(query.as_bytes());
        if let Some((name, _)) = parameters().find(|(name, _)| name != "snapshot") {
            return Err(unknown_parameter(&name));
        }
        let mut names = parameters();
        match (names.next(), names.next()) {
            (Some((_, name)), None) => Ok(Self(name.parse()?)),
            (None, _) => Err(Problem::invalid_input(
                "the parameter snapshot is missing, as in ?snapshot=NAME",
            )),
            _ => Err(Problem::invalid_input(
                "the parameter snapshot is given more than once",
            )),
        }
    }
}

/// A JSON body, or without one `?snapshot=NAME`.
pub(crate) enum BodyOrSnapshot<T> {
    Body(T),
    Snapshot(SnapshotName),
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for BodyOrSnapshot<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default();
        let has_query = form_urlencoded::parse(query.as_bytes()).next().is_some();
        let snapshot = match has_query {
            true => Some(
                SnapshotQuery::from_request_parts(&mut parts, state)
                    .await?
                    .0,
            ),
            false => None,
        };
        let text = read_body(Request::from_parts(parts, body), state).await?;
        match (snapshot, text.trim_ascii().is_empty()) {
            (Some(snapshot), true) => Ok(Self::Snapshot(snapshot)),
            (Some(_), false) => Err(Problem::invalid_input(
                "the snapshot is in the query and there is a body: use one of the two",
            )),
            (None, _) => parse(&text).map(Self::Body),
        }
    }
}

/// [`RequestOptions`] of a call with a query.
pub(crate) struct HeaderOptions(pub RequestOptions);

impl<S: Sync> FromRequestParts<S> for HeaderOptions {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        RequestOptions::from_headers(&parts.headers).map(Self)
    }
}

/// Options of calls that run a job; they have no query.
#[derive(Debug, Default, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct RequestOptions {
    /// `respond-async`: answer at once, or after `wait=SECONDS`, with 202 and the job (RFC 7240). Without it the call
    /// waits for the job.
    #[param(rename = "Prefer", value_type = Option<String>)]
    pub wait: Option<Duration>,
    /// A second request with the same key gets the result of the first one's job. The last 1000 keys are kept for a day,
    /// until snapdeck ends.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$"
    )]
    pub key: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for RequestOptions {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        NoQuery::from_request_parts(parts, state).await?;
        Self::from_headers(&parts.headers)
    }
}

impl RequestOptions {
    fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let preferences: Vec<&str> = headers
            .get_all("prefer")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split([',', ';']))
            .map(str::trim)
            .collect();
        let is_async = preferences
            .iter()
            .any(|preference| preference.eq_ignore_ascii_case("respond-async"));
        // Unknown preferences are ignored (RFC 7240, section 2).
        let seconds = preferences.iter().find_map(|preference| {
            let (name, value) = preference.split_once('=')?;
            let value = value.trim().trim_matches('"');
            name.trim()
                .eq_ignore_ascii_case("wait")
                .then(|| value.parse::<u32>().ok())?
        });
        let key = headers
            .get("idempotency-key")
            .map(|key| match key.to_str() {
                Ok(key)
                    if (1..=MAX_KEY_BYTES).contains(&key.len())
                        && key.bytes().all(|c| c.is_ascii_graphic()) =>
                {
                    Ok(key.to_owned())
                }
                _ => Err(Problem::invalid_input(format!(
                    "Idempotency-Key must have 1 to {MAX_KEY_BYTES} visible ASCII characters"
                ))),
            });
        Ok(Self {
            wait: is_async.then(|| Duration::from_secs(seconds.unwrap_or(0).into())),
            key: key.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::http::HeaderValue;

    fn options(headers: &[(&'static str, &'static str)]) -> RequestOptions {
        let pairs = headers.iter().map(|(name, value)| {
            let name = axum::http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        RequestOptions::from_headers(&pairs.collect()).unwrap()
    }

    #[test]
    fn preferences_are_parsed_as_in_rfc_7240() {
        assert_eq!(options(&[]).wait, None);
        assert_eq!(options(&[("prefer", "wait=5")]).wait, None);
        assert_eq!(
            options(&[("prefer", "Respond-Async")]).wait,
            Some(Duration::ZERO)
        );
        for value in [
            "respond-async, wait=5",
            "foo=bar,WAIT = \"5\" , respond-async",
        ] {
            assert_eq!(
                options(&[("prefer", value)]).wait,
                Some(Duration::from_secs(5)),
                "{value}"
            );
        }
    }
}
