//! The health check of direct downloads: whether a host can get an object from the bucket by a request that is signed here.

use std::time::Duration;

use snapdeck_bucket::Bucket;
use snapdeck_host::{Host, HostAnswer};
use snapdeck_model::Check;
use snapdeck_model::settings::TransferRoute;

const CHECK_NAME: &str = "direct downloads";
/// Of the request, which is tried at once.
const VALIDITY: Duration = Duration::from_secs(60);

/// Tries a request from the host; `None` if its pulls do not download directly.
pub(super) async fn check_direct_downloads(host: &Host, bucket: &Bucket) -> Option<Check> {
    let settings = host.settings();
    if settings.transfer == TransferRoute::Relay || !bucket.is_configured() {
        return None;
    }
    let attempt = async {
        let endpoint = settings.bucket_endpoint.as_deref();
        let request = bucket.presign_probe(endpoint, VALIDITY).await?;
        host.fs().try_request(&request).await
    };
    Some(match attempt.await {
        Ok(answer) => report(&answer?, settings.transfer),
        Err(error) => Check::failed(
            CHECK_NAME,
            error.to_string(),
            "see the checks of the bucket",
        ),
    })
}

fn report(answer: &HostAnswer, route: TransferRoute) -> Check {
    let failed = |finding: String, hint: &str| match route {
        TransferRoute::Direct => Check::failed(CHECK_NAME, finding, hint),
        TransferRoute::Auto | TransferRoute::Relay => Check::warning(CHECK_NAME, finding, hint),
    };
    let Some(curl) = &answer.curl else {
        return failed("curl is not installed".into(), "install curl there");
    };
    if let Some(error) = &answer.error {
        return failed(
            format!("it cannot reach the store: {error}"),
            "set bucket_endpoint of the host to the store's URL there, or trust its certificate there",
        );
    }
    let code = answer.code.as_deref().unwrap_or_default();
    match (answer.status, code) {
        (404, "NoSuchKey") => {
            let program = curl.split(" (").next().unwrap_or_default();
            Check::passed(CHECK_NAME, format!("{program} reaches the store"))
        }
        (403, "AccessDenied") => failed(
            "the store refuses what does not exist (AccessDenied)".into(),
            "give the key of [bucket] s3:ListBucket, and check the clock of this machine",
        ),
        (status, code) => failed(
            format!("the store answers {status} {code}"),
            "check the credentials of [bucket], the clock of this machine, and bucket_endpoint of the host",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapdeck_model::Verdict;

    fn verdict(curl: Option<&str>, status: u16, code: &str, error: Option<&str>) -> Verdict {
        let answer = HostAnswer {
            curl: curl.map(str::to_owned),
            status,
            code: (!code.is_empty()).then(|| code.to_owned()),
            error: error.map(str::to_owned),
        };
        report(&answer, TransferRoute::Auto).verdict
    }

    #[test]
    fn an_object_that_does_not_exist_is_the_right_answer() {
        let curl = Some("curl 7.88.1 (x86_64)");
        assert_eq!(verdict(curl, 404, "NoSuchKey", None), Verdict::Passed);
        assert_eq!(verdict(curl, 403, "AccessDenied", None), Verdict::Warning);
        assert_eq!(verdict(curl, 404, "NoSuchBucket", None), Verdict::Warning);
        assert_eq!(verdict(curl, 404, "", None), Verdict::Warning);
        assert_eq!(
            verdict(curl, 403, "SignatureDoesNotMatch", None),
            Verdict::Warning
        );
        assert_eq!(
            verdict(curl, 0, "", Some("curl: (60) SSL")),
            Verdict::Warning
        );
        assert_eq!(verdict(None, 0, "", None), Verdict::Warning);
    }
}
