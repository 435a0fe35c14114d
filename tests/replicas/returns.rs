//! What replicas have used counts after they have gone, and once if they come back.

use super::*;

#[tokio::test]
async fn a_replica_that_comes_back_counts_once_what_its_ledger_says() {
    let Some(mut redis) = Redis::start().await else { return };
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite:{}", folder.path().join("state.db").display());
    let store = redis.store(1).replace("memory:", &file);
    let terms = key("budget = [{ tokens = 100_000, window = \"1d\" }]");
    let sections = format!("{store}{}{terms}", provider("up", &upstream));
    let gateway = [Gateway::start("", &sections).await];
    connected(&gateway).await;
    for _ in 0..3 {
        assert_eq!(ask(gateway[0].address, "up/a").await.status, 200);
    }
    settled(&gateway, 3 * USED).await;
    for gateway in gateway {
        gateway.kill();
    }
    let gateway = [Gateway::start("", &sections).await];
    connected(&gateway).await;
    settled(&gateway, 3 * USED).await;
    redis.restart().await;
    connected(&gateway).await;
    assert_eq!(ask(gateway[0].address, "up/a").await.status, 200);
    settled(&gateway, 4 * USED).await;
}

#[tokio::test]
async fn what_a_replica_used_that_is_gone_counts_although_redis_has_forgotten_it() {
    let Some(mut redis) = Redis::start().await else { return };
    let Some(mut schema) = Schema::new("gone").await else { return };
    let most = most().await;
    let upstream = Upstream::start([("first", [Script::json(200, REPLY)]), ("a", [slow()])]).await;
    let room = 3 * USED + 4 * most;
    let budgets = [", window = \"1d\"", ", window = \"10h\", rolling = true"];
    let budgets = budgets.map(|window| format!("{{ tokens = {room}{window} }}")).join(", ");
    let mut gateways = Vec::new();
    for number in 0..2 {
        let journal = schema.journal(&number.to_string());
        let place = format!("{}\"\njournal = \"{}", schema.url(None), journal.display());
        let store = redis.store(2).replace("memory:", &place);
        let terms = key(&format!("budget = [{budgets}]"));
        gateways.push(
            Gateway::start("", &format!("{store}{}{terms}", provider("up", &upstream))).await,
        );
    }
    connected(&gateways).await;
    let gone = gateways.pop().unwrap();
    for _ in 0..3 {
        assert_eq!(ask(gone.address, "up/first").await.status, 200);
    }
    settled(&gateways, 3 * USED).await;
    let spent = "SELECT coalesce(sum(amount), 0)::bigint FROM {schema}.spent \
                 WHERE unit = 'tokens' AND account = 'key:ci'";
    let begin = Instant::now();
    while schema.number(spent).await < 3 * USED {
        assert!(begin.elapsed() < Duration::from_secs(15), "the journal is not taken in");
    }
    gone.kill();
    redis.restart().await;
    connected(&gateways).await;
    settled(&gateways, 3 * USED).await;
    let answers = all_at_once(&gateways, 20).join_all().await;
    assert_eq!(statuses(&answers), (4, 16));
    settled(&gateways, 7 * USED).await;
}

#[tokio::test]
async fn restarts_give_nothing_back_of_a_limit_by_time() {
    let Some(redis) = Redis::start().await else { return };
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite:{}", folder.path().join("state.db").display());
    let store = redis.store(1).replace("memory:", &file);
    let terms = key("limits = { requests = \"10/h\", tokens = \"1000/h\" }");
    let sections = format!("{store}{}{terms}", provider("up", &upstream));
    let mut answered = Vec::new();
    for _ in 0..4 {
        let gateway = [Gateway::start("", &sections).await];
        connected(&gateway).await;
        let mut count = 0;
        for _ in 0..4 {
            let answer = ask(gateway[0].address, "up/a").await;
            count += usize::from(answer.status == 200);
        }
        answered.push(count);
        let [gateway] = gateway;
        gateway.stop();
    }
    assert_eq!(answered, [4, 4, 2, 0]);
}

#[tokio::test]
async fn a_budget_that_is_written_later_knows_the_minute_that_has_begun() {
    let Some(redis) = Redis::start().await else { return };
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite:{}", folder.path().join("state.db").display());
    let store = redis.store(1).replace("memory:", &file);
    let sections = |terms: &str| format!("{store}{}{}", provider("up", &upstream), key(terms));
    let gateway = [Gateway::start("", &sections("")).await];
    connected(&gateway).await;
    for _ in 0..3 {
        assert_eq!(ask(gateway[0].address, "up/a").await.status, 200);
    }
    let terms = sections("budget = [{ tokens = 100_000, window = \"1d\" }]");
    assert_eq!(gateway[0].reload(&terms).await.status, 200);
    settled(&gateway, 3 * USED).await;
}

#[tokio::test]
async fn a_budget_that_is_written_later_knows_what_a_replica_used_that_is_gone() {
    let Some(redis) = Redis::start().await else { return };
    let Some(mut schema) = Schema::new("later").await else { return };
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let sections = |number: usize, terms: &str| {
        let journal = schema.journal(&number.to_string());
        let place = format!("{}\"\njournal = \"{}", schema.url(None), journal.display());
        let store = redis.store(2).replace("memory:", &place);
        format!("{store}{}{}", provider("up", &upstream), key(terms))
    };
    let budget = "budget = [{ tokens = 100_000, window = \"1d\" }]";
    let (here, later) = (sections(0, ""), sections(0, budget));
    let mut gateways =
        vec![Gateway::start("", &here).await, Gateway::start("", &sections(1, "")).await];
    connected(&gateways).await;
    for _ in 0..3 {
        assert_eq!(ask(gateways[1].address, "up/a").await.status, 200);
    }
    let begin = Instant::now();
    while schema.number("SELECT count(*) FROM {schema}.calls").await < 3 {
        assert!(begin.elapsed() < Duration::from_secs(15), "the journal is not taken in");
    }
    gateways.remove(1).kill();
    assert_eq!(gateways[0].reload(&later).await.status, 200);
    settled(&gateways, 3 * USED).await;
}
