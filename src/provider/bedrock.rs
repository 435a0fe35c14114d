//! Amazon Bedrock's addresses: hosts by region, and the model in the path.

use super::encode::push_segment;

pub(super) const ID: &str = "bedrock";

/// The tokens of a question, told in the answer's head.
pub(super) const INPUT_TOKENS: &str = "x-amzn-bedrock-input-token-count";

/// What is asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Converse,
    /// Answers in event-stream frames.
    ConverseStream,
    /// The model's own format; embeddings are asked for so.
    Invoke,
}

/// Regions whose names begin so end in another domain than the rest.
const DOMAINS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("eusc-", "amazonaws.eu"),
];

/// The domain of a region's services.
pub(super) fn domain(region: &str) -> &'static str {
    let found = DOMAINS.iter().find(|(prefix, _)| region.starts_with(prefix));
    found.map_or("amazonaws.com", |(_, domain)| domain)
}

/// The runtime of a region.
pub(super) fn base_url(region: &str) -> String {
    format!("https://bedrock-runtime.{region}.{}", domain(region))
}

/// The path that asks `model`: an id, an inference profile or an ARN, as one segment.
pub(super) fn path(base: &str, model: &str, operation: Operation) -> String {
    let mut path = format!("{base}/model/");
    push_segment(&mut path, model);
    path.push_str(match operation {
        Operation::Converse => "/converse",
        Operation::ConverseStream => "/converse-stream",
        Operation::Invoke => "/invoke",
    });
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_have_their_own_hosts() {
        let hosts = [
            ("us-east-1", "https://bedrock-runtime.us-east-1.amazonaws.com"),
            ("us-gov-west-1", "https://bedrock-runtime.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"),
            ("us-iso-east-1", "https://bedrock-runtime.us-iso-east-1.c2s.ic.gov"),
            ("eusc-de-east-1", "https://bedrock-runtime.eusc-de-east-1.amazonaws.eu"),
        ];
        for (region, host) in hosts {
            assert_eq!(base_url(region), host);
        }
    }

    #[test]
    fn a_model_stays_in_its_segment_whatever_it_is_called() {
        let id = "anthropic.claude-haiku-4-5-20251001-v1:0";
        assert_eq!(
            path("", id, Operation::Converse),
            "/model/anthropic.claude-haiku-4-5-20251001-v1%3A0/converse"
        );
        let arn = "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.x";
        assert_eq!(
            path("/proxy", arn, Operation::ConverseStream),
            "/proxy/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Ainference-profile%2Feu.x\
             /converse-stream"
        );
        assert_eq!(path("", "..", Operation::Invoke), "/model/%2E%2E/invoke");
        assert_eq!(path("", "a/../b?c#d", Operation::Invoke), "/model/a%2F..%2Fb%3Fc%23d/invoke");
    }
}
