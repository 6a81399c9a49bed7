//! What the README says of keys and metrics is what the code says. `UPDATE_DOCS=1 cargo test --test docs` writes it.

use std::path::Path;

fn check(section: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(&path).expect("README.md is readable");
    let begin = format!("<!-- {section}: written by the tests, see tests/docs.rs -->\n");
    let end = format!("<!-- /{section} -->");
    let from = text.find(&begin).expect("the section begins") + begin.len();
    let to = from + text[from..].find(&end).expect("the section ends");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let text = format!("{}{table}{}", &text[..from], &text[to..]);
        std::fs::write(&path, text).expect("README.md is writable");
        return;
    }
    assert_eq!(&text[from..to], table, "README.md is out of date: UPDATE_DOCS=1 cargo test --test docs");
}

#[test]
fn the_readme_lists_every_key_and_every_metric() {
    check("configuration", &deletion_worker::config::markdown_table());
    check("metrics", &deletion_worker::metrics::markdown_table());
}
