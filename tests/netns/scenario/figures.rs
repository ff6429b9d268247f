//! What is asked for arrives, whole and exact, or the answer says what is missing.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Claim;
use crate::client::{self, Answer, Connection};
use crate::figures;
use crate::island::Island;
use crate::measure::percentile;
use crate::node::eventually;
use crate::runner::Run;

pub(super) const SCENARIOS: &[Claim] = &[
    ("figures::all_built_in_figures_arrive_exactly", built_in),
    ("figures::three_shares_on_three_servers_make_a_whole_and_a_missing_one_is_named", shares),
    ("figures::a_folder_that_changes_changes_what_is_offered", folder),
    ("figures::a_large_catalogue_is_announced_in_one_datagram_and_found_as_fast", large_catalogue),
];

fn built_in(run: &Run) -> Result<()> {
    let island = Island::start(run, &[("hub", &["intermediary"]), ("p1", &["pieces"])])?;
    let hub = island.node("hub")?.http();
    let mut connection = Connection::open(&island.client, hub)?;
    ensure!(figures::names().len() == 17, "the data file has {} figures", figures::names().len());
    for path in figures::paths() {
        let answer = connection.get(&path)?;
        figures::check(&path, &answer).map_err(anyhow::Error::msg)?;
        let answer_fields = ["via", "isle-served-by", "server-timing"];
        for field in answer_fields {
            ensure!(answer.header(field).is_some(), "{path} lacks {field}: {:?}", answer.headers);
        }
        ensure!(
            answer.json()?["sources"][0]["name"] == "p1",
            "{path}: sources {}",
            answer.json()?["sources"]
        );
    }
    let shouted = connection.get("/figures/GiRaFfE")?;
    figures::check("/figures/giraffe", &shouted).map_err(anyhow::Error::msg)?;

    let unknown = connection.get("/figures/no-such-figure")?;
    ensure!(unknown.status == 404, "an unknown figure is {}: {}", unknown.status, unknown.text());
    expect_problem(&unknown)?;

    let listed = connection.get("/figures?limit=1000")?.json()?;
    let names: Vec<&str> = listed["figures"]
        .as_array()
        .context("a list")?
        .iter()
        .filter_map(|figure| figure["name"].as_str())
        .collect();
    ensure!(names == figures::names(), "the catalogue lists {names:?}");
    Ok(())
}

fn shares(run: &Run) -> Result<()> {
    let files = figures::shares("giraffe", 3)?;
    for (index, file) in files.iter().enumerate() {
        let folder = run.folder.path().join(format!("share{}", index + 1));
        fs::create_dir(&folder)?;
        fs::write(folder.join("giraffe.json"), file)?;
    }
    let mut island = Island::start(
        run,
        &[
            ("hub", &["intermediary"]),
            ("p1", &["pieces", "--figures", "share1"]),
            ("p2", &["pieces", "--figures", "share2"]),
            ("p3", &["pieces", "--figures", "share3"]),
        ],
    )?;
    let hub = island.node("hub")?.http();
    let path = "/figures/giraffe";
    eventually("giraffe from three shares", Duration::from_secs(10), || {
        let answer = client::get(&island.client, hub, path)?;
        figures::check(path, &answer).map_err(anyhow::Error::msg)?;
        let sources = answer.json()?["sources"].as_array().map_or(0, Vec::len);
        ensure!(sources == 3, "{sources} sources");
        Ok(true)
    })?;

    let log = island.node("hub")?.events();
    let mut second = island.take("p2")?;
    let (id, host) = (second.id().to_owned(), second.host.clone());
    second.interrupt()?;
    log.wait("left", Duration::from_secs(5), |seen| seen.is("left", &id))?;
    let asked = Instant::now();
    let missing = client::expect(&island.client, hub, path, 503)?;
    run.measures.add("a figure with a share missing: 503 after", asked.elapsed());
    expect_problem(&missing)?;
    ensure!(missing.json()?["missing"] == json!(["2/3"]), "missing is not 2/3: {}", missing.text());
    ensure!(missing.header("retry-after").is_some(), "no Retry-After: {:?}", missing.headers);
    second.ended(Duration::from_secs(5))?;

    let back = island.join(&host, &["pieces", "--figures", "share2"])?;
    let took = eventually("giraffe whole again", Duration::from_secs(10), || {
        figures::check(path, &client::get(&island.client, hub, path)?).map_err(anyhow::Error::msg)?;
        Ok(true)
    })?;
    run.measures.add("a figure whole again after its share's server was ready", took);
    drop(back);
    Ok(())
}

fn folder(run: &Run) -> Result<()> {
    let folder = run.folder.path().join("figures");
    fs::create_dir(&folder)?;
    fs::write(
        folder.join("first.json"),
        r#"{"name":"first","pieces":[{"part":"brick","color":"red","quantity":2}]}"#,
    )?;
    let island =
        Island::start(run, &[("hub", &["intermediary"]), ("p1", &["pieces", "--figures", "figures"])])?;
    let hub = island.node("hub")?.http();
    let status =
        |name: &str| anyhow::Ok(client::get(&island.client, hub, &format!("/figures/{name}"))?.status);
    eventually("the first figure", Duration::from_secs(10), || Ok(status("first")? == 200))?;

    fs::write(folder.join(".half"), "half written")?;
    fs::write(folder.join(".second"), r#"{"name":"second","pieces":[{"part":"plate","quantity":3}]}"#)?;
    let written = Instant::now();
    fs::rename(folder.join(".second"), folder.join("second.json"))?;
    eventually("a figure put into the folder", Duration::from_secs(10), || Ok(status("second")? == 200))?;
    run.measures.add("a figure put into a folder: served after", written.elapsed());

    fs::remove_file(folder.join("first.json"))?;
    let took = eventually("a figure taken out of the folder", Duration::from_secs(10), || {
        Ok(matches!(status("first")?, 404 | 503))
    })?;
    run.measures.add("a figure taken out of a folder: gone after", took);
    let second = client::expect(&island.client, hub, "/figures/second", 200)?.json()?;
    ensure!(second["total"] == 3, "second is {second}");
    Ok(())
}

fn large_catalogue(run: &Run) -> Result<()> {
    let count = run.count(10_000, 100_000);
    let list: Vec<Value> = (0..count)
        .map(|number| {
            let pieces = json!([{"part": "brick", "color": "red", "quantity": number % 50 + 1}]);
            json!({"name": format!("figure-{number}"), "pieces": pieces})
        })
        .collect();
    fs::write(run.folder.path().join("many.json"), serde_json::to_vec(&list)?)?;
    let mut island = Island::start(run, &[("hub", &["intermediary"]), ("few", &["pieces"])])?;
    let hub = island.node("hub")?.http();
    let log = island.node("hub")?.events();
    let small = lookups(&island, "/figures/giraffe", |answer| answer.status == 200)?;

    let host = island.host("many")?;
    let many = island.join(&host, &["pieces", "--figures", "many.json"])?;
    let announced = log.wait("its figures", Duration::from_secs(20), |seen| {
        seen.data["member"]["id"] == many.id() && seen.data["member"]["figures"] == count
    })?;
    let last = format!("/figures/figure-{}", count - 1);
    eventually("the last figure", Duration::from_secs(30), || {
        Ok(client::get(&island.client, hub, &last)?.status == 200)
    })?;
    let indexed = announced.at.elapsed();
    run.measures.add(&format!("{count} figures: served after they were announced"), indexed);
    let large = lookups(&island, &last, |answer| answer.status == 200)?;
    for (what, samples) in [("17", &small), ("many", &large)] {
        for took in samples {
            run.measures.add(&format!("lookup with {what} figures"), *took);
        }
    }
    let bound = run.bound(Duration::from_secs(5), Duration::from_secs(2));
    ensure!(indexed < bound, "indexed after {indexed:?}");
    let (small, large) = (percentile(&small, 50), percentile(&large, 50));
    ensure!(large < small * 3 + Duration::from_millis(1), "a lookup takes {large:?} instead of {small:?}");
    Ok(())
}

/// Times of a few hundred requests over one connection.
fn lookups(island: &Island, path: &str, right: impl Fn(&Answer) -> bool) -> Result<Vec<Duration>> {
    let hub = island.node("hub")?.http();
    eventually("a first answer", Duration::from_secs(10), || {
        Ok(right(&client::get(&island.client, hub, path)?))
    })?;
    let mut connection = Connection::open(&island.client, hub)?;
    (0..300)
        .map(|_| {
            let answer = connection.get(path)?;
            ensure!(right(&answer), "{path}: {} {}", answer.status, answer.text());
            Ok(answer.took)
        })
        .collect()
}

/// Whether an answer is a problem that says why and what to do.
pub(super) fn expect_problem(answer: &Answer) -> Result<()> {
    ensure!(
        answer.header("content-type") == Some("application/problem+json"),
        "no problem+json: {:?} {}",
        answer.headers,
        answer.text()
    );
    let problem = answer.json()?;
    ensure!(problem["status"] == answer.status, "another status inside: {problem}");
    for field in ["type", "title", "detail", "reason"] {
        ensure!(problem[field].is_string(), "no {field}: {problem}");
    }
    Ok(())
}
