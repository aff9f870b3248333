use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{Code, Link, Problem};

/// The front page: a form and the newest links with their hits.
pub(crate) fn home(links: &[Link], created: Option<&Code>) -> Markup {
    let body = html! {
        form method="post" action="/links" {
            input type="url" name="url" placeholder="https://example.com/a/long/address"
                aria-label="Address to shorten" maxlength="2048" required autofocus;
            button { "Shorten" }
        }
        @if let Some(code) = created {
            p.created role="status" { "Your short link: " a href={ "/" (code) } { "/" (code) } }
        }
        @if links.is_empty() {
            p.empty { "No links yet. Shorten the first one." }
        } @else {
            table {
                thead { tr { th { "Link" } th { "Leads to" } th.hits { "Hits" } } }
                tbody {
                    @for link in links {
                        tr {
                            td { a href={ "/" (link.code) } { "/" (link.code) } }
                            td.url title=(link.url) { (link.url) }
                            td.hits { a href={ "/" (link.code) "/stats" } { (link.hits) } }
                        }
                    }
                }
            }
        }
    };
    page("Short links", &body)
}

/// What a browser is shown when its request went wrong.
pub(crate) fn problem(problem: &Problem, request_id: Option<&str>) -> Markup {
    let body = html! {
        p.problem role="alert" { (problem) }
        @if let Some(id) = request_id {
            p.empty { "Request " code { (id) } }
        }
        p { a href="/" { "Back to the links" } }
    };
    page(
        problem.status().canonical_reason().unwrap_or("Error"),
        &body,
    )
}

fn page(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { h1 { (title) } (body) } }
        }
    }
}

const STYLE: &str = "
:root { color-scheme: light dark; --line: light-dark(#d8dee4, #3d444d);
  --soft: light-dark(#59636e, #9198a1); --accent: light-dark(#0a58ca, #6ea8fe); }
* { box-sizing: border-box; }
body { margin: 0; font: 1rem/1.5 system-ui, sans-serif;
  color: light-dark(#1f2328, #e6edf3); background: light-dark(#fff, #151b23); }
main { max-width: 46rem; margin: 4rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.75rem; letter-spacing: -0.02em; margin: 0 0 1.5rem; }
form { display: flex; gap: .5rem; }
input, button { font: inherit; padding: .6rem .9rem; border-radius: .5rem; border: 1px solid var(--line); }
input { flex: 1; min-width: 0; color: inherit; background: transparent; }
button { color: light-dark(#fff, #0d1117); background: var(--accent); border-color: transparent;
  font-weight: 600; cursor: pointer; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
table { width: 100%; margin-top: 2rem; border-collapse: collapse; table-layout: fixed; }
th { text-align: left; font-weight: 500; font-size: .85rem; color: var(--soft); }
th, td { padding: .55rem .5rem .55rem 0; border-bottom: 1px solid var(--line); }
th:first-child { width: 7.5rem; }
.hits { text-align: right; width: 4.5rem; padding-right: 0; font-variant-numeric: tabular-nums; }
.url { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: var(--soft); }
.created, .problem { padding: .75rem 1rem; border-radius: .5rem; border: 1px solid var(--line); }
.created { border-color: var(--accent); } .problem { border-color: light-dark(#cf222e, #f85149); }
.empty { color: var(--soft); margin-top: 2rem; }
";
