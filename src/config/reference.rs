//! A secret that another system keeps, by its name there: `vault:secret/openai#api_key`.

use std::collections::BTreeMap;
use std::fmt;

use super::secret::Secret;

/// Who keeps secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manager {
    /// `HashiCorp` Vault, in a KV engine of version 2.
    Vault,
    /// AWS Secrets Manager.
    Aws,
    /// Google Secret Manager.
    Gcp,
}

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub manager: Manager,
    /// Of Vault a mount and a path, of the others a name, an ARN or a resource.
    pub name: String,
    /// One of the values, where several are kept under the name.
    pub field: Option<String>,
}

/// What is known of secrets that are kept elsewhere.
pub type Known = BTreeMap<Reference, Secret>;

/// A reference as it stands in a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it stands first.
    pub path: String,
    /// Of that.
    pub line: usize,
    /// `None` until somebody has fetched it: then the reference itself stands in its place.
    pub value: Option<Secret>,
}

// === impl Manager ===

impl Manager {
    pub const ALL: [Self; 3] = [Self::Vault, Self::Aws, Self::Gcp];

    /// What references to it begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::Aws => "aws-sm",
            Self::Gcp => "gcp-sm",
        }
    }

    /// The section that says how it is reached.
    pub fn section(self) -> &'static str {
        match self {
            Self::Vault => "secrets.vault",
            Self::Aws => "secrets.aws",
            Self::Gcp => "secrets.gcp",
        }
    }
}

// === impl Reference ===

impl Reference {
    /// What `written` refers to, if it is a reference.
    pub(super) fn parse(written: &str) -> Option<Result<Self, String>> {
        let rest = |manager: &Manager| {
            let prefix = manager.prefix();
            let plain = written.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(':'));
            // The same as an address.
            let address =
                || written.strip_prefix("secret://")?.strip_prefix(prefix)?.strip_prefix('/');
            plain.or_else(address)
        };
        let found = Manager::ALL.iter().find_map(|manager| Some((*manager, rest(manager)?)));
        match found {
            Some((manager, rest)) => Some(Self::of(manager, rest)),
            None if written.starts_with("secret://") => {
                let known = "write secret://vault/…, secret://aws-sm/… or secret://gcp-sm/…";
                Some(Err(format!("names no manager of secrets; {known}")))
            }
            None => None,
        }
    }

    fn of(manager: Manager, rest: &str) -> Result<Self, String> {
        let (name, field) = match rest.rsplit_once('#') {
            Some((name, field)) => (name, Some(field.to_owned())),
            None => (rest, None),
        };
        let plain = |text: &str| {
            !text.is_empty() && !text.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        if !plain(name) || !field.as_deref().is_none_or(plain) {
            return Err(format!("is no reference; write \"{}:NAME#FIELD\"", manager.prefix()));
        }
        if manager == Manager::Vault && (field.is_none() || !name.trim_matches('/').contains('/')) {
            return Err("needs a mount, a path and a field: \"vault:MOUNT/PATH#FIELD\"".to_owned());
        }
        Ok(Self { manager, name: name.trim_matches('/').to_owned(), field })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.manager.prefix(), self.name)?;
        self.field.iter().try_for_each(|field| write!(formatter, "#{field}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(written: &str) -> Option<Result<String, String>> {
        Reference::parse(written).map(|found| found.map(|reference| reference.to_string()))
    }

    #[test]
    fn a_reference_names_who_keeps_the_secret_and_where() {
        for written in [
            "vault:secret/apps/openai#api_key",
            "aws-sm:prod/openai",
            "aws-sm:arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/openai-AbCdEf#key",
            "gcp-sm:openai",
            "gcp-sm:projects/p/secrets/openai/versions/7#key",
        ] {
            assert_eq!(read(written), Some(Ok(written.to_owned())));
        }
        let same = read("secret://vault/secret/openai#key");
        assert_eq!(same, Some(Ok("vault:secret/openai#key".to_owned())));
        assert_eq!(read("sk-proj-literal"), None);
    }

    #[test]
    fn what_could_lead_nowhere_is_refused() {
        for written in
            ["vault:secret/openai", "vault:openai#key", "vault:#key", "aws-sm:", "gcp-sm:a b"]
        {
            assert!(matches!(read(written), Some(Err(_))), "{written}");
        }
        assert!(matches!(read("secret://azure/x"), Some(Err(_))));
    }
}
