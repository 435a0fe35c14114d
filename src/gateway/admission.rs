//! Who is let in: whoever shows a key, or in its place a token of an issuer that is trusted.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;

use super::{Gateway, Past, Snapshot};
use crate::access::{Caller, CallerRef, Visitor};
use crate::error::{Error, Kind};

impl Gateway {
    /// Verifies what a request shows of its sender. Keys are known at once; a token that is new may
    /// take a look at its issuer's keys.
    pub async fn admit(
        &self,
        house: &Snapshot,
        headers: &HeaderMap,
        from: Option<IpAddr>,
    ) -> Result<Caller, Error> {
        match house.access.admit(headers, from) {
            Err(refusal) if refusal.kind == Kind::InvalidKey => {
                // Boxed, so that a call is not larger for what few of them do.
                Box::pin(self.admit_token(house, headers, from, refusal)).await
            }
            known => known,
        }
    }

    async fn admit_token(
        &self,
        house: &Snapshot,
        headers: &HeaderMap,
        from: Option<IpAddr>,
        refusal: Error,
    ) -> Result<Caller, Error> {
        let known = (&house.config, &*house.roster);
        let Some(admitted) = house.tokens.admit(headers, from, known).await else {
            return Err(refusal);
        };
        self.receive(admitted?).await
    }

    /// The caller of a run that goes on, by what was kept of it: under the terms that hold now, or
    /// refused as any call of theirs would be.
    pub async fn recognise(&self, known: &CallerRef) -> Result<Caller, Error> {
        let house = self.snapshot();
        match house.tokens.recognise(known, &house.config, &house.roster) {
            Some(visitor) => self.receive(visitor?).await,
            None => house.access.recognise(known),
        }
    }

    /// Lets a user in whose account knows what was spent before.
    async fn receive(&self, visitor: Visitor) -> Result<Caller, Error> {
        // Who is new has not called yet: none do until it is known what they have spent.
        let past = if visitor.is_new { Past::All } else { Past::Before };
        if let Some(account) = &visitor.account
            && let Err(error) = self.seed_account(account, past).await
        {
            tracing::error!(%error, "cannot read what a user has spent before");
            let message = "What you have used so far is not known at the moment; try again.";
            let mut refused = Error::new(Kind::Overloaded, message);
            refused.retry_after = Some(Duration::from_secs(1));
            return Err(refused);
        }
        Ok(visitor.caller)
    }
}
