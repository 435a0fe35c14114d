//! The profiles in `~/.aws/config` and `~/.aws/credentials`, as the AWS tools read them.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::AwsEnvironment;

pub(super) const DEFAULT: &str = "default";

/// All profiles of both files.
#[derive(Debug, Default)]
pub(super) struct Profiles(BTreeMap<String, Profile>);

/// The settings of one profile.
#[derive(Default)]
pub(super) struct Profile(BTreeMap<String, String>);

// === impl Profiles ===

impl Profiles {
    /// Reads both files; one that does not exist is empty.
    pub(super) fn read(environment: &AwsEnvironment) -> Result<Self, String> {
        let mut profiles = Self::default();
        // The credentials file wins where both say something.
        if let Some(path) = &environment.config_file {
            profiles.add(&text(path)?, "profile ");
        }
        if let Some(path) = &environment.credentials_file {
            profiles.add(&text(path)?, "");
        }
        Ok(profiles)
    }

    pub(super) fn find(&self, name: &str) -> Option<&Profile> {
        self.0.get(name)
    }

    /// `prefix` stands before a profile's name, except before the default one.
    fn add(&mut self, text: &str, prefix: &str) {
        let mut current = None;
        for line in text.lines() {
            let is_nested = line.starts_with([' ', '\t']);
            let line = line.trim();
            if let Some(header) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
                let header = header.trim();
                let name = match header.strip_prefix(prefix) {
                    Some(name) => Some(name.trim()),
                    // Anything else in the config file is no profile: `[sso-session x]`.
                    None => (header == DEFAULT).then_some(DEFAULT),
                };
                current = name.map(|name| name.trim_matches('"').to_owned());
            } else if let (Some(name), false) =
                (&current, is_nested || line.starts_with(['#', ';']))
                && let Some((key, value)) = line.split_once('=')
            {
                let value = value.split(" #").next().unwrap_or_default().trim();
                let profile = self.0.entry(name.clone()).or_default();
                profile.0.insert(key.trim().to_ascii_lowercase(), value.to_owned());
            }
        }
    }
}

fn text(path: &Path) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("{}: {error}", path.display())),
        Ok(text) => Ok(text),
    }
}

// === impl Profile ===

impl Profile {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Profile({:?})", self.0.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_read_and_the_credentials_file_wins() {
        let mut profiles = Profiles::default();
        let config = "[default]\nregion = eu-west-1 # near\n[profile work]\nrole_arn=arn:1\n\
                      s3 =\n  max = 1\n[sso-session x]\nregion = no\n";
        profiles.add(config, "profile ");
        profiles.add("# mine\n[work]\naws_access_key_id = AKID\nrole_arn = arn:2\n", "");
        assert_eq!(profiles.find("default").unwrap().get("region"), Some("eu-west-1"));
        let work = profiles.find("work").unwrap();
        assert_eq!((work.get("role_arn"), work.get("s3")), (Some("arn:2"), None));
        assert_eq!((work.get("aws_access_key_id"), work.get("max")), (Some("AKID"), None));
        assert!(profiles.find("x").is_none() && profiles.find("sso-session x").is_none());
        assert!(!format!("{profiles:?}").contains("AKID"));
    }
}
