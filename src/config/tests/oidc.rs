//! What is told of issuers that could not be trusted, or not be found.

use super::*;
use crate::config::{Algorithm, Role};

fn issuer(lines: &str) -> String {
    format!("{SOUND}[teams.search]\n[auth.oidc.corp]\n{lines}\n")
}

fn told(lines: &str) -> String {
    complaints(&issuer(lines))
}

const GOOD: &str = "issuer = \"https://login.example\"\naudience = \"gateway\"\n";

#[test]
fn an_issuer_needs_little_and_has_safe_defaults() {
    let config = parse(&issuer(GOOD)).unwrap();
    let oidc = &config.oidc["corp"];
    assert_eq!(oidc.audience, ["gateway"]);
    assert_eq!(oidc.algorithms, [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]);
    assert_eq!((&*oidc.user, oidc.takes_teamless, oidc.leeway.as_secs()), ("sub", false, 60));
    assert_eq!((&oidc.team, &oidc.role, &oidc.key), (&None, &None, &None));
}

#[test]
fn claims_are_mapped_to_teams_and_roles() {
    let more = "team = \"groups\"\nteams = { g-1 = \"search\" }\nunknown_team = \"allow\"\n\
                role = \"roles\"\nroles = { admins = \"team_admin\" }\n";
    let config = parse(&issuer(&format!("{GOOD}{more}"))).unwrap();
    let oidc = &config.oidc["corp"];
    assert_eq!(oidc.teams["g-1"], "search");
    assert_eq!(oidc.roles["admins"], Role::TeamAdmin);
    assert!(oidc.takes_teamless);
}

#[test]
fn what_would_make_tokens_worthless_is_refused() {
    for (lines, complaint) in [
        ("audience = \"a\"", "auth.oidc.corp: `issuer` is missing"),
        ("issuer = \"https://a.example\"", "auth.oidc.corp: `audience` is missing"),
        ("issuer = \"https://a.example\"\naudience = []", "audience: must name at least one"),
        ("issuer = \"http://a.example\"\naudience = \"a\"", "must begin with https://"),
        ("issuer = \"corp\"\naudience = \"a\"", "must begin with https://"),
        ("issuer = \"https://a:b@c.example\"\naudience = \"a\"", "must not contain a user name"),
    ] {
        assert!(told(lines).contains(complaint), "{lines}: {}", told(lines));
    }
    for (more, complaint) in [
        ("algorithms = [\"HS256\"]", "\"HS256\" is none of \"RS256\""),
        ("algorithms = [\"none\"]", "\"none\" is none of"),
        ("algorithms = []", "must name at least one"),
        ("jwks_url = \"http://10.0.0.1/keys\"", "http is for loopback"),
        ("jwks_url = \"file:///etc/keys\"", "URL"),
        ("leeway = \"1h\"", "must be at most 10m"),
        ("teams = { a = \"search\" }", "means nothing without `team`"),
        ("unknown_team = \"allow\"", "means nothing without `team`"),
        ("roles = { a = \"owner\" }", "means nothing without `role`"),
        ("role = \"r\"\nroles = { a = \"root\" }", "\"root\" is none of \"owner\""),
        ("team = \"t\"\nteams = { a = \"serch\" }", "no team is called \"serch\"; did you mean"),
        ("key = \"staff\"", "no key is called \"staff\""),
        ("[auth.oidc.twin]\nissuer = \"https://login.example\"\naudience = \"b\"", "already"),
        ("[keys.a]\ntemplate = true\nsecret = \"s\"", "a template has no `secret`"),
    ] {
        let told = told(&format!("{GOOD}{more}"));
        assert!(told.contains(complaint), "{more}: {told}");
    }
    assert_eq!(told("issuer = \"http://127.0.0.1:1\"\naudience = \"a\""), "");
    assert_eq!(told("issuer = \"corp\"\naudience = \"a\"\njwks_url = \"https://a.example/k\""), "");
}
