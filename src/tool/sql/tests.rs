//! Statements as tools, in a real file.

use std::collections::BTreeMap;

use super::*;
use crate::config::{SqlTemplate, StoreUrl, ToolKind};
use crate::tool::Output;
use crate::tool::openapi::tests::call;

const SALES: &str = "CREATE TABLE sales(sku TEXT, month TEXT, total REAL); \
    INSERT INTO sales VALUES ('A', '2026-01', 10), ('A', '2026-02', 5.5), ('B', '2026-01', 1);";

struct Bench {
    tools: Vec<Tool>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(change: impl FnOnce(&mut SqlTool)) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sales.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch(SALES).unwrap();
        let mut sql = SqlTool {
            database: StoreUrl::Sqlite(path),
            max_rows: 2,
            statement_timeout: Duration::from_secs(5),
            ..SqlTool::default()
        };
        change(&mut sql);
        let terms = config::Tool {
            kind: ToolKind::Sql(Box::new(sql.clone())),
            description: "Sales.".to_owned(),
            effects: BTreeMap::from([("add".to_owned(), Effect::Once)]),
            ..config::Tool::default()
        };
        Ok(Self { tools: tools("sales", &Arc::new(terms), &sql, &Net::alone())?, _folder: folder })
    }

    fn written(templates: &[(&str, &str)]) -> Result<Self, String> {
        let template = |(name, sql): &(&str, &str)| {
            let sql = (*sql).to_owned();
            ((*name).to_owned(), SqlTemplate { sql, ..SqlTemplate::default() })
        };
        Self::new(|sql| sql.templates = templates.iter().map(template).collect())
    }

    async fn run(&self, name: &str, args: Value) -> Result<Output, Failure> {
        let tool = self.tools.iter().find(|tool| *tool.name == *name).unwrap();
        tool.call(&call(args)).await
    }
}

#[tokio::test]
async fn each_template_is_a_tool_that_asks_for_its_parameters() {
    let by_month = "-- Revenue of one product, by month.\nSELECT month, sum(total) AS total FROM \
                    sales WHERE sku = :sku GROUP BY 1 ORDER BY 1";
    let bench = Bench::written(&[("by_month", by_month), ("all", "SELECT * FROM sales")]).unwrap();
    let tool = bench.tools.iter().find(|tool| &*tool.name == "sales.by_month").unwrap();
    assert_eq!(tool.description, "Sales. Revenue of one product, by month.");
    assert_eq!((tool.effect, &*tool.alias), (Effect::Read, "sales__by_month"));
    assert_eq!(tool.input["required"], json!(["sku"]));
    let output = bench.run("sales.by_month", json!({"sku": "A"})).await.unwrap();
    let rows = json!([{"month": "2026-01", "total": 10.0}, {"month": "2026-02", "total": 5.5}]);
    assert_eq!(output.value, Some(json!({"row_count": 2, "rows": rows})));
    let output = bench.run("sales.all", json!({})).await.unwrap();
    assert_eq!(output.value.unwrap()["more_rows"], true);
    for hostile in ["A' OR 1=1 --", "'; DROP TABLE sales; --"] {
        let output = bench.run("sales.by_month", json!({"sku": hostile})).await.unwrap();
        assert_eq!(output.value, Some(json!({"row_count": 0, "rows": []})));
    }
    for wrong in [json!({}), json!({"sku": ["A"]}), json!({"sku": "A", "x": 1}), json!({"sku": {}})]
    {
        let failure = bench.run("sales.by_month", wrong).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid);
    }
}

#[tokio::test]
async fn only_what_says_that_it_changes_something_can() {
    let add = "INSERT INTO sales VALUES (:sku, :month, :total)";
    let bench = Bench::written(&[("add", add), ("sneak", add)]).unwrap();
    let args = json!({"sku": "C", "month": "2026-03", "total": 7});
    let failure = bench.run("sales.sneak", args.clone()).await.unwrap_err();
    assert_eq!(failure.message, "only queries are allowed here");
    assert_eq!((failure.kind, failure.sent), (FailureKind::Soft, Sent::Refused));
    let output = bench.run("sales.add", args).await.unwrap();
    assert_eq!(output.value, Some(json!({"changed_rows": 1})));
}

#[tokio::test]
async fn a_model_may_ask_whatever_only_reads() {
    let chosen = |sql: &mut SqlTool| {
        sql.select_only = true;
        sql.statement_timeout = Duration::from_millis(500);
    };
    let bench = Bench::new(chosen).unwrap();
    assert_eq!(bench.tools.len(), 1);
    assert!(bench.tools[0].description.contains("sqlite_schema"));
    let ask = async |sql: &str| bench.run("sales.query", json!({"sql": sql})).await;
    let output = ask("SELECT count(*) AS n FROM sales").await.unwrap();
    assert_eq!(output.value, Some(json!({"row_count": 1, "rows": [{"n": 3}]})));
    let failure = ask("DELETE FROM sales").await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Soft);
    assert!(ask("SELECT 1; SELECT 2").await.unwrap_err().message.contains("one statement"));
    assert_eq!(ask(&" ".repeat(LONGEST + 1)).await.unwrap_err().kind, FailureKind::Invalid);
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    let failure = ask(endless).await.unwrap_err();
    assert_eq!((failure.kind, failure.attempts), (FailureKind::Soft, 1), "asked again in vain");
    assert_eq!(ask("SELECT absent").await.unwrap_err().message, "no such column: absent");
}

#[test]
fn a_template_that_cannot_be_read_is_named() {
    let told = Bench::written(&[("odd", "SELECT 'a")]).err().unwrap();
    assert_eq!(told, "odd: a ' is not closed");
}
