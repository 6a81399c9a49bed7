//! A look at the worker's admin server.

use std::time::Duration;

/// Status and body of a GET; an error means that nobody answered.
pub(crate) async fn get(url: &str) -> Result<(u16, String), reqwest::Error> {
    // A second installation is refused and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The system's root certificates take milliseconds to read, and a look is taken many times a second.
    let client =
        reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().tls_certs_only([]).build()?;
    let answer = client.get(url).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// The value of one series in Prometheus' text format: the one with exactly these labels, in any order.
pub(crate) fn series(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut wanted: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    wanted.sort();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, inside) = match series.split_once('{') {
            Some((found, rest)) => (found, rest.strip_suffix('}')?),
            None => (series, ""),
        };
        // Label values of ours hold no commas.
        let mut pairs: Vec<&str> = inside.split(',').filter(|pair| !pair.is_empty()).collect();
        pairs.sort_unstable();
        (found == name && pairs == wanted).then(|| value.parse().ok()).flatten()
    })
}

#[test]
fn a_series_is_found_by_exactly_its_labels() {
    let text =
        "# HELP a b\n# TYPE a counter\na 3\na_total{x=\"1\",y=\"2\"} 4.5\na_total{x=\"1\"} 5\nb{} 1e3\n";
    assert_eq!(series(text, "a", &[]), Some(3.0));
    assert_eq!(series(text, "a_total", &[("y", "2"), ("x", "1")]), Some(4.5));
    assert_eq!(series(text, "a_total", &[("x", "1")]), Some(5.0));
    assert_eq!(series(text, "a_total", &[]), None);
    assert_eq!(series(text, "b", &[]), Some(1000.0));
}
