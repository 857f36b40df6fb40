//! A real actix-web server with a pipeline inside: requests feed it, and its state answers them. Ends by itself; exit code 0 is
//! a pass.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::{Context, ensure};
use millstream::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn visit(feed: web::Data<Feed<String>>, page: web::Path<String>) -> HttpResponse {
    match feed.send_durable_async(page.into_inner()).await {
        Ok(receipt) => match receipt.await {
            Ok(_) => HttpResponse::Ok().body("durable"),
            Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
        },
        Err(error) => HttpResponse::ServiceUnavailable().body(error.to_string()),
    }
}

async fn get(port: u16, path: &str) -> anyhow::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let (feed, visits) = feed::<String>(64);
    let (sink, counted) = Collect::<(String, u64)>::new();
    let pipeline = Pipeline::new("visits").epoch_interval(Duration::from_millis(10));
    pipeline.source("visits", visits).key_by_ref(|page| page.as_str()).count("per-page").sink("counts", sink);
    let runtime = Runtime::builder().workers(2).build()?;
    let job = runtime.start(pipeline)?;

    let shared = web::Data::from(Arc::new(feed));
    let app = move || App::new().app_data(shared.clone()).route("/{page}", web::get().to(visit));
    let server = HttpServer::new(app).workers(1).bind(("127.0.0.1", 0))?;
    let port = server.addrs().first().context("the server has no address")?.port();
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);

    for (page, times) in [("a", 3), ("b", 1)] {
        for _ in 0..times {
            let answer = get(port, &format!("/{page}")).await?;
            ensure!(answer.contains("200 OK") && answer.ends_with("durable"), "unexpected answer: {answer}");
        }
    }
    handle.stop(true).await;
    job.stop(Duration::from_secs(10)).await?;

    let mut rows = counted.snapshot();
    rows.sort();
    let wanted = [("a", 1), ("a", 2), ("a", 3), ("b", 1)].map(|(page, count)| (page.to_owned(), count));
    ensure!(rows == wanted, "unexpected counts: {rows:?}");
    let left = std::fs::read_dir("/proc/self/task")?.filter_map(|task| {
        let name = std::fs::read_to_string(task.ok()?.path().join("comm")).ok()?;
        name.starts_with("millstream").then_some(name)
    });
    let left: Vec<String> = left.collect();
    ensure!(left.is_empty(), "threads are left: {left:?}");
    println!("4 requests counted inside actix-web; nothing of millstream is left after stop");
    Ok(())
}
