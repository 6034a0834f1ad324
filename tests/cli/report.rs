//! The page of `evaluate --report`.

use std::fs;

use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::{folder, folder_with_actor, names, oneactor, text};

/// All parts between `before` and `after`, in order.
fn between<'a>(page: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    page.split(before)
        .skip(1)
        .filter_map(|rest| rest.split(after).next())
        .collect()
}

#[test]
fn the_page_holds_what_the_table_says_and_needs_no_other_file() {
    let folder = folder_with_actor("report");
    let line = "sample robot -p 'a robot at the beach' -p 'a robot, at night' --num-images 2 --steps 3 --compare -o out";
    oneactor(&folder, line).exits_with(0);
    let line = "evaluate out --model toy --target robot/base/01.png --format json";
    let alone = oneactor(&folder, line).exits_with(0);
    let run = oneactor(&folder, &format!("{line} --report pages/a.html"))
        .exits_with(0)
        .says("the report is pages/a.html");
    assert_eq!(
        run.stdout, alone.stdout,
        "the table is the same with a page"
    );
    assert_eq!(names(&folder.join("pages")), ["a.html"]);

    let page = text(&folder.join("pages/a.html"));
    for address in ["http", "<script", "url(", "src=\"/", "@import"] {
        assert!(!page.contains(address), "{address}");
    }
    assert_eq!(page.matches("src=\"data:image/png;base64,").count(), 9);
    // The page has every score of every picture, in the order of the table.
    let rows: Vec<Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect();
    let pictures: Vec<&Value> = rows.iter().filter(|row| row["kind"] == "picture").collect();
    let figures = between(&page, "<dl class=\"scores\">", "</figure>");
    assert_eq!((pictures.len(), figures.len()), (8, 8));
    for (picture, figure) in pictures.iter().zip(&figures) {
        for name in ["clip_i", "clip_i_pairwise", "clip_t"] {
            let value = picture["scores"][name].as_f64().expect("a number");
            let expected = format!("<dt>{name}</dt><dd>{value:.4}</dd>");
            assert!(figure.contains(&expected), "{expected}: {figure}");
        }
        assert!(figure.contains(picture["prompt"].as_str().expect("a prompt")));
        assert!(figure.contains(&format!("seed\u{a0}{}", picture["seed"])));
    }
    let overall = "overall: 4 pictures, without those of the plain model";
    assert!(page.contains(overall), "{page}");
    // The page has every mean.
    for row in rows.iter().filter(|row| row["kind"] != "picture") {
        for (_, value) in row["scores"].as_object().expect("scores") {
            let mean = value["mean"].as_f64().expect("a number");
            let cell = match value["sd"].as_f64() {
                Some(sd) => format!("<td>{mean:.4} ± {sd:.4}</td>"),
                None => format!("<td>{mean:.4}</td>"), // one pair only, so no deviation
            };
            assert!(page.contains(&cell), "{cell}");
        }
    }
    // The plot has a mark for each picture and for each of the two actors.
    let plot = between(&page, "<svg class=\"plot\"", "</svg>");
    assert_eq!(plot.len(), 1);
    assert_eq!(plot[0].matches("<title>").count(), 10);
    assert_eq!(plot[0].matches("class=\"plain").count(), 5);
    assert!(page.contains("<h2>clip_i against clip_t</h2>"));

    // The command on the page makes the same page.
    let command = between(&page, "<pre>", "</pre>")[0].to_owned();
    let words = command.strip_prefix("oneactor ").expect("it is a command");
    assert!(words.contains("--clip-model toy"), "{words}");
    fs::remove_file(folder.join("pages/a.html")).expect("it is there");
    oneactor(&folder, words).exits_with(0);
    assert_eq!(text(&folder.join("pages/a.html")), page);
}

#[test]
fn hostile_prompts_stay_text_and_large_pictures_become_small() {
    let folder = folder("report-hostile");
    let large = RgbImage::from_fn(600, 300, |x, y| Rgb([x as u8, y as u8, 90]));
    large
        .save(folder.join("a<b>&.png"))
        .expect("the folder is writable");
    let prompt = "</dl><script>alert(1)</script> \"quoted\" & {braces} ünï";
    let line = "evaluate a<b>&.png --model toy --report a.html --format csv --fail-below clip_t=2";
    oneactor(&folder, &format!("{line} --prompt '{prompt}'"))
        .exits_with(6)
        .says("expected at least 2");
    let page = text(&folder.join("a.html"));
    assert!(!page.contains("<script"), "a tag has come through");
    assert!(page.contains(
        "&lt;/dl&gt;&lt;script&gt;alert(1)&lt;/script&gt; &quot;quoted&quot; &amp; {braces} ünï"
    ));
    assert!(page.contains("a&lt;b&gt;&amp;.png"));
    assert!(page.contains("width=\"256\" height=\"128\""));
    assert!(page.contains("not passed: clip_t: found "));
    // With one picture and no target there is nothing to compare, so there is no plot.
    assert!(!page.contains("<svg class=\"plot\""));
    assert!(page.contains("<dt>clip_i_pairwise</dt><dd>–</dd>"));
}

#[test]
fn a_wrong_report_is_refused_before_anything_is_measured() {
    let folder = folder("report-bad");
    RgbImage::new(8, 8)
        .save(folder.join("a.png"))
        .expect("the folder is writable");
    oneactor(&folder, "evaluate a.png -p a --model toy --report a.png")
        .exits_with(2)
        .says("--report: found a.png, expected the name of a file that ends in .html")
        .writes_nothing();
    oneactor(
        &folder,
        "evaluate a.png -p a --model toy --report a.png/b.html",
    )
    .exits_with(2)
    .says("--report: a.png is a file, expected a folder: choose another folder, or move the file away")
    .writes_nothing();
    let batch = r#"{"defaults": {"clip_model": "toy", "pictures": "a.png", "prompt": "a", "report": "x.html"},
        "jobs": [{}, {"metrics": "clip_t"}]}"#;
    fs::write(folder.join("batch.json"), batch).expect("the folder is writable");
    oneactor(&folder, "evaluate --config batch.json")
        .exits_with(2)
        .says("--report: found x.html in two jobs, expected a different file for each")
        .writes_nothing();
    assert_eq!(names(&folder), ["a.png", "batch.json"]);
}
