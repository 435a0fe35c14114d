//! What the claims of a proven token come to: for whom and until when it is good, and who shows it.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::config::{Oidc, Role};
use crate::error::{Error, Kind};

/// Longer names are nobody's.
const LONGEST_NAME: usize = 200;

type Claims = Map<String, Value>;

/// Who shows a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) user: String,
    pub(super) team: Option<String>,
    pub(super) role: Option<Role>,
}

/// Until when the token is good. `now`, as every time here, counts from the beginning of 1970.
pub(super) fn check(claims: &Claims, oidc: &Oidc, now: Duration) -> Result<Duration, Error> {
    if claims.get("iss").and_then(Value::as_str) != Some(&oidc.issuer) {
        return Err(invalid("The issuer of this token is not known to the gateway."));
    }
    let is_meant = |audience: &str| oidc.audience.iter().any(|known| known == audience);
    if !words(claims.get("aud")).any(is_meant) {
        return Err(invalid("This token is for somebody else: its audience is not this gateway."));
    }
    let Some(end) = claims.get("exp").and_then(time) else {
        return Err(invalid("This token has no time at which it ends, and so is not taken."));
    };
    let end = end.saturating_add(oidc.leeway);
    if end <= now {
        return Err(Error::new(Kind::ExpiredKey, "This token has expired; sign in again."));
    }
    if let Some(begin) = claims.get("nbf")
        && time(begin).is_none_or(|begin| begin > now.saturating_add(oidc.leeway))
    {
        return Err(invalid("This token is not good yet."));
    }
    let name = |claim| find(claims, claim).and_then(Value::as_str);
    let is_revoked = |name: Option<&str>| name.is_some_and(|name| oidc.revoked.contains(name));
    if is_revoked(name("jti")) || is_revoked(name(&oidc.user)) || is_early(claims, oidc) {
        return Err(revoked());
    }
    Ok(end)
}

/// Whether it is older than tokens may be, or does not say how old it is.
fn is_early(claims: &Claims, oidc: &Oidc) -> bool {
    let Some(after) = oidc.issued_after else { return false };
    let after = Duration::from_secs(u64::try_from(after.as_second()).unwrap_or_default());
    claims.get("iat").and_then(time).is_none_or(|issued| issued < after)
}

pub(super) fn revoked() -> Error {
    Error::new(Kind::KeyRevoked, "This token was revoked.")
}

/// Whom the claims name. `is_team`: whether there is a team of that name.
pub(super) fn identify(
    claims: &Claims,
    oidc: &Oidc,
    is_team: impl Fn(&str) -> bool,
) -> Result<Identity, Error> {
    let user = find(claims, &oidc.user).and_then(Value::as_str).filter(|user| is_name(user));
    let user = user.ok_or_else(|| invalid("This token does not say who its user is."))?;
    let team = oidc.team.as_ref().and_then(|claim| {
        words(find(claims, claim)).find_map(|said| {
            let team = if oidc.teams.is_empty() {
                Some(said)
            } else {
                oidc.teams.get(said).map(String::as_str)
            };
            team.filter(|team| is_team(team)).map(str::to_owned)
        })
    });
    if team.is_none() && oidc.team.is_some() && !oidc.takes_teamless {
        let message = "The user of this token belongs to no team that may call here.";
        return Err(Error::new(Kind::NotAllowed, message));
    }
    // Of several roles the one that may most: whoever gave them meant them all.
    let role = oidc.role.as_ref().and_then(|claim| {
        let roles = words(find(claims, claim)).filter_map(|said| {
            if oidc.roles.is_empty() { said.parse().ok() } else { oidc.roles.get(said).copied() }
        });
        roles.max()
    });
    Ok(Identity { user: user.to_owned(), team, role })
}

/// The claim of this name, or where there is none the one that its dots lead to.
fn find<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

/// One word, or each of a list.
fn words(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let one = value.and_then(Value::as_str);
    let many = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    one.into_iter().chain(many)
}

fn time(value: &Value) -> Option<Duration> {
    Duration::try_from_secs_f64(value.as_f64()?).ok()
}

fn is_name(user: &str) -> bool {
    let is_blank = user.trim().is_empty();
    !is_blank && user.len() <= LONGEST_NAME && !user.chars().any(char::is_control)
}

fn invalid(message: &'static str) -> Error {
    Error::new(Kind::InvalidKey, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Duration = Duration::from_hours(500_000);

    fn oidc() -> Oidc {
        let text = |text: &str| text.to_owned();
        Oidc {
            issuer: text("https://login.example"),
            audience: vec![text("gateway"), text("other")],
            team: Some(text("groups")),
            role: Some(text("realm_access.roles")),
            ..Oidc::default()
        }
    }

    fn claims(change: &Value) -> Claims {
        let mut claims = json!({
            "iss": "https://login.example", "aud": "gateway", "sub": "ann", "exp": 1_800_000_100,
            "groups": ["all", "search"], "realm_access": {"roles": ["viewer", "operator", "x"]},
        });
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => claims.as_object_mut().unwrap().remove(name),
                value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        claims.as_object().unwrap().clone()
    }

    fn checked(change: &Value) -> Result<Duration, Kind> {
        check(&claims(change), &oidc(), NOW).map_err(|error| error.kind)
    }

    #[test]
    fn a_token_is_good_for_its_audience_and_its_time() {
        assert_eq!(checked(&json!({})), Ok(Duration::from_secs(1_800_000_160)));
        assert!(checked(&json!({"aud": ["somebody", "other"]})).is_ok());
        assert!(checked(&json!({"exp": 1_799_999_950.5, "nbf": 1_800_000_050})).is_ok(), "leeway");
        assert_eq!(checked(&json!({"exp": 1_799_999_940})), Err(Kind::ExpiredKey));
        for odd in [
            json!({"aud": null}),
            json!({"aud": "Gateway"}),
            json!({"aud": []}),
            json!({"aud": {"gateway": true}}),
            json!({"iss": null}),
            json!({"iss": "https://login.example/"}),
            json!({"iss": ["https://login.example"]}),
            json!({"exp": null}),
            json!({"exp": "1800000100"}),
            json!({"exp": -1}),
            json!({"exp": 1e300}),
            json!({"nbf": 1_800_000_061}),
            json!({"nbf": "now"}),
        ] {
            assert_eq!(checked(&odd), Err(Kind::InvalidKey), "{odd}");
        }
    }

    #[test]
    fn a_token_is_refused_when_it_or_its_user_or_its_age_is_revoked() {
        let revokes = |name: &str| Oidc { revoked: [name.to_owned()].into(), ..oidc() };
        let since =
            |second| Oidc { issued_after: jiff::Timestamp::from_second(second).ok(), ..oidc() };
        let shown = claims(&json!({"jti": "t-1", "iat": 1_799_999_000}));
        let kind = |oidc: &Oidc, claims| check(claims, oidc, NOW).map_err(|error| error.kind);
        for refusing in [revokes("t-1"), revokes("ann"), since(1_799_999_001)] {
            assert_eq!(kind(&refusing, &shown), Err(Kind::KeyRevoked), "{refusing:?}");
        }
        for taking in [revokes("t-2"), since(1_799_999_000)] {
            assert!(kind(&taking, &shown).is_ok(), "{taking:?}");
        }
        assert_eq!(kind(&since(1), &claims(&json!({}))), Err(Kind::KeyRevoked), "of no known age");
    }

    #[test]
    fn claims_name_a_user_a_team_and_a_role() {
        let identity = identify(&claims(&json!({})), &oidc(), |team| team == "search").unwrap();
        assert_eq!((&*identity.user, identity.team.as_deref()), ("ann", Some("search")));
        assert_eq!(identity.role, Some(Role::Operator));
    }

    #[test]
    fn nobody_is_no_user() {
        for user in [json!(null), json!(""), json!("  "), json!(7), json!(["ann"]), json!("a\nb")] {
            let error = identify(&claims(&json!({"sub": user})), &oidc(), |_| true).unwrap_err();
            assert_eq!(error.kind, Kind::InvalidKey, "{user}");
        }
        let long = "a".repeat(LONGEST_NAME + 1);
        assert!(identify(&claims(&json!({"sub": long})), &oidc(), |_| true).is_err());
    }

    #[test]
    fn an_unknown_team_is_refused_unless_it_is_allowed() {
        let none = |_: &str| false;
        let error = identify(&claims(&json!({})), &oidc(), none).unwrap_err();
        assert_eq!(error.kind, Kind::NotAllowed);
        let lenient = Oidc { takes_teamless: true, ..oidc() };
        assert_eq!(identify(&claims(&json!({})), &lenient, none).unwrap().team, None);
    }

    #[test]
    fn with_a_map_only_what_it_holds_means_something() {
        let mapped = Oidc {
            teams: [("all".to_owned(), "everybody".to_owned())].into(),
            roles: [("x".to_owned(), Role::Viewer)].into(),
            ..oidc()
        };
        let identity = identify(&claims(&json!({})), &mapped, |_| true).unwrap();
        assert_eq!(
            (identity.team.as_deref(), identity.role),
            (Some("everybody"), Some(Role::Viewer))
        );
        let identity =
            identify(&claims(&json!({"realm_access": {"roles": "owner"}})), &mapped, |_| true);
        assert_eq!(identity.unwrap().role, None);
    }
}
