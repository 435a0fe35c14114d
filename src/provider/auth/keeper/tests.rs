//! A credential that runs out is fetched once, early, and not in vain.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{advance, timeout};

use super::*;

const HOUR: Duration = Duration::from_hours(1);

/// Issues the number of the fetch, when it is let.
#[derive(Debug, Clone)]
struct Numbered(Arc<Desk>);

#[derive(Debug)]
struct Desk {
    fetches: AtomicUsize,
    open: Semaphore,
    broken: AtomicUsize,
    lifetime: Option<Duration>,
}

impl Issuer for Numbered {
    type Credential = usize;

    async fn issue(&self) -> Result<Issued<usize>, AuthFault> {
        let number = self.0.fetches.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.open.acquire().await.unwrap().forget();
        match self.0.broken.load(Ordering::SeqCst) {
            0 => Ok(Issued { credential: number, lifetime: self.0.lifetime }),
            _ => Err(AuthFault("the desk is closed".to_owned())),
        }
    }
}

impl Desk {
    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

/// A keeper, and the desk it asks, which serves `visits` fetches without waiting.
fn keeper(lifetime: Option<Duration>, visits: usize) -> (Arc<Keeper<Numbered>>, Arc<Desk>) {
    let desk = Arc::new(Desk {
        fetches: AtomicUsize::new(0),
        open: Semaphore::new(visits),
        broken: AtomicUsize::new(0),
        lifetime,
    });
    (Arc::new(Keeper::new(Numbered(Arc::clone(&desk)))), desk)
}

async fn settled(keeper: &Keeper<Numbered>) {
    keeper.0.tasks.finished().await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_wait_for_one_fetch() {
    let (keeper, desk) = keeper(Some(HOUR), 0);
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let keeper = Arc::clone(&keeper);
        callers.spawn(async move { *keeper.credential().await.unwrap() });
    }
    while desk.fetches() == 0 {
        yield_now().await;
    }
    desk.open.add_permits(100);
    assert_eq!(callers.join_all().await, [1; 100]);
    assert_eq!(desk.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_renewed_ahead_of_its_end_while_nobody_waits() {
    let (keeper, desk) = keeper(Some(HOUR), 1);
    assert_eq!(*keeper.credential().await.unwrap(), 1);
    advance(Duration::from_mins(54)).await;
    assert_eq!(*keeper.credential().await.unwrap(), 1);
    settled(&keeper).await;
    assert_eq!(desk.fetches(), 1);

    advance(Duration::from_mins(1)).await;
    for _ in 0..100 {
        assert_eq!(*keeper.credential().await.unwrap(), 1, "the desk has not answered yet");
    }
    desk.open.add_permits(1);
    settled(&keeper).await;
    assert_eq!((*keeper.credential().await.unwrap(), desk.fetches()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_bridged_while_the_old_one_is_valid_and_told_afterwards() {
    let (keeper, desk) = keeper(Some(HOUR), 1000);
    assert_eq!(*keeper.credential().await.unwrap(), 1);
    desk.broken.store(1, Ordering::SeqCst);
    advance(Duration::from_mins(59)).await;
    assert_eq!(*keeper.credential().await.unwrap(), 1);
    settled(&keeper).await;
    advance(Duration::from_mins(2)).await;
    let fault = keeper.credential().await.unwrap_err();
    assert_eq!(fault.to_string(), "the desk is closed");

    desk.broken.store(0, Ordering::SeqCst);
    advance(Duration::from_secs(2)).await;
    assert_eq!(*keeper.credential().await.unwrap(), desk.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_failure_speaks_for_the_calls_of_the_next_second() {
    let (keeper, desk) = keeper(None, 1000);
    desk.broken.store(1, Ordering::SeqCst);
    for _ in 0..100 {
        assert!(keeper.credential().await.is_err());
    }
    assert_eq!(desk.fetches(), 1);
    advance(Duration::from_millis(1001)).await;
    assert!(keeper.credential().await.is_err());
    assert_eq!(desk.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_outlives_the_call_that_asked_for_it() {
    let (keeper, desk) = keeper(Some(HOUR), 0);
    assert!(timeout(Duration::from_millis(1), keeper.credential()).await.is_err());
    assert!(keeper.held().is_none());
    desk.open.add_permits(1);
    assert_eq!((*keeper.credential().await.unwrap(), desk.fetches()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_doubted_is_fetched_anew_but_not_while_it_is_young() {
    let (keeper, desk) = keeper(Some(HOUR), 10);
    assert_eq!(*keeper.credential().await.unwrap(), 1);
    keeper.doubt();
    assert_eq!(*keeper.credential().await.unwrap(), 1);
    advance(Duration::from_mins(2)).await;
    keeper.doubt();
    assert_eq!((*keeper.credential().await.unwrap(), desk.fetches()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_is_never_renewed_and_what_has_ended_is_never_used() {
    let (keeper_of_endless, desk) = keeper(None, 1);
    assert_eq!(*keeper_of_endless.credential().await.unwrap(), 1);
    advance(HOUR * 1000).await;
    assert_eq!((*keeper_of_endless.credential().await.unwrap(), desk.fetches()), (1, 1));

    let (keeper_of_ended, _) = keeper(Some(Duration::ZERO), 1);
    let fault = keeper_of_ended.credential().await.unwrap_err();
    assert!(fault.to_string().contains("check the clock"), "{fault}");
}
