//! The table of results: a row for each picture, prompt and actor, and one for all pictures.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::column::{Column, Summary};
use crate::wording::counted;

/// The name of the actor for pictures that the plain model drew.
pub const PLAIN: &str = "plain";

/// The measured pictures and their values.
pub struct Table {
    /// The pictures, one row each.
    pub pictures: Vec<PictureRow>,
    /// The columns, one for each measured quantity.
    pub columns: Vec<Column>,
    /// The groups, one row each, below the pictures.
    pub groups: Vec<Group>,
    /// Number of the job in its batch, counted from 1.
    job: usize,
}

/// The facts of a picture in the table, besides its values.
#[derive(Clone, Debug)]
pub struct PictureRow {
    /// The picture's file.
    pub path: PathBuf,
    /// The picture's prompt without weights, or the prompt of the flags.
    pub prompt: Option<String>,
    /// The seed that the picture records.
    pub seed: Option<i64>,
    /// The actors of the picture, joined by " + "; [`PLAIN`] without actors.
    pub actor: String,
    /// Whether this is the target.
    pub is_target: bool,
}

/// The property that the pictures of a group share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// The prompt.
    Prompt,
    /// The actors.
    Actor,
    /// All pictures of the job.
    Overall,
}

impl GroupKind {
    /// The name in results.
    pub const fn name(self) -> &'static str {
        match self {
            GroupKind::Prompt => "prompt",
            GroupKind::Actor => "actor",
            GroupKind::Overall => "overall",
        }
    }
}

/// A group of pictures, for which means are computed.
pub struct Group {
    /// The property that the pictures share.
    pub kind: GroupKind,
    /// The prompt or the actor; empty for all pictures.
    pub name: String,
    /// Indices of the pictures in [`Table::pictures`].
    pub members: Vec<usize>,
}

impl Table {
    /// Groups the pictures. If some pictures have an actor, the plain pictures form a separate group and are
    /// left out of the overall mean, which measures the actors. The target is in no group.
    pub fn new(pictures: Vec<PictureRow>, columns: Vec<Column>, job: usize) -> Self {
        let is_guided = |picture: &PictureRow| picture.actor != PLAIN && !picture.is_target;
        let has_guided = pictures.iter().any(is_guided);
        let counts = |picture: &PictureRow| !has_guided || picture.actor != PLAIN;
        let everything: Vec<usize> = (0..pictures.len())
            .filter(|&i| !pictures[i].is_target)
            .collect();
        let all: Vec<usize> = everything
            .iter()
            .copied()
            .filter(|&i| counts(&pictures[i]))
            .collect();
        let by = |kind, name: &dyn Fn(&PictureRow) -> Option<String>, members: &[usize]| {
            let mut groups: Vec<Group> = Vec::new();
            let mut places = BTreeMap::new();
            for &i in members {
                let Some(name) = name(&pictures[i]) else {
                    continue;
                };
                let place = *places.entry(name.clone()).or_insert_with(|| {
                    groups.push(Group {
                        kind,
                        name,
                        members: Vec::new(),
                    });
                    groups.len() - 1
                });
                groups[place].members.push(i);
            }
            groups
        };
        let mut groups = by(GroupKind::Prompt, &|picture| picture.prompt.clone(), &all);
        groups.extend(by(
            GroupKind::Actor,
            &|picture| Some(picture.actor.clone()),
            &everything,
        ));
        groups.push(Group {
            kind: GroupKind::Overall,
            name: String::new(),
            members: all,
        });
        Self {
            pictures,
            columns,
            groups,
            job,
        }
    }

    /// The mean of this column over all pictures; `None` if nothing was compared.
    pub fn overall(&self, column: &str) -> Option<Summary> {
        let column = self.columns.iter().find(|of| of.name == column)?;
        let all = self.groups.last().expect("the last group is all pictures");
        column.over(&all.members)
    }

    /// The table as aligned text: the pictures, then each kind of group as mean ± standard deviation.
    pub fn text(&self) -> String {
        let mut parts =
            vec![self.block("picture", |i| self.pictures[i].path.display().to_string())];
        for kind in [GroupKind::Prompt, GroupKind::Actor, GroupKind::Overall] {
            let groups = self.groups.iter().filter(|group| group.kind == kind);
            let mut rows = vec![self.heading(kind.name())];
            for group in groups {
                let title = self.title(group);
                let cells = self
                    .columns
                    .iter()
                    .map(|column| match column.over(&group.members) {
                        None => "-".to_owned(),
                        Some(Summary { mean, sd: None, .. }) => format!("{mean:.4}"),
                        Some(Summary {
                            mean, sd: Some(sd), ..
                        }) => format!("{mean:.4} ± {sd:.4}"),
                    });
                rows.push(std::iter::once(title).chain(cells).collect());
            }
            if rows.len() > 1 {
                parts.push(aligned(&rows));
            }
        }
        parts.join("\n")
    }

    /// The name of a group with the number of its pictures.
    pub fn title(&self, group: &Group) -> String {
        let count = counted(group.members.len(), "picture", "pictures");
        let is_left_out = |picture: &PictureRow| picture.actor == PLAIN && !picture.is_target;
        let is_plain = group
            .members
            .iter()
            .any(|&i| is_left_out(&self.pictures[i]));
        match group.kind {
            GroupKind::Prompt | GroupKind::Actor => format!("{} ({count})", group.name),
            GroupKind::Overall if !is_plain && self.pictures.iter().any(is_left_out) => {
                format!("{count}, without those of the plain model")
            }
            GroupKind::Overall => count,
        }
    }

    fn heading(&self, first: &str) -> Vec<String> {
        let names = self.columns.iter().map(|column| column.name.clone());
        std::iter::once(first.to_owned()).chain(names).collect()
    }

    fn block(&self, first: &str, title: impl Fn(usize) -> String) -> String {
        let mut rows = vec![self.heading(first)];
        for i in 0..self.pictures.len() {
            let cells = self
                .columns
                .iter()
                .map(|column| match column.of_picture(i) {
                    Some(value) => format!("{value:.4}"),
                    None => "-".to_owned(),
                });
            rows.push(std::iter::once(title(i)).chain(cells).collect());
        }
        aligned(&rows)
    }

    /// The table as one JSON object per line: pictures, then groups. A missing value is null.
    pub fn json(&self) -> String {
        let mut lines = String::new();
        for (i, picture) in self.pictures.iter().enumerate() {
            let scores = self
                .columns
                .iter()
                .map(|column| (column.name.clone(), json!(column.of_picture(i))));
            let line = json!({
                "command": "evaluate",
                "job": self.job,
                "kind": "picture",
                "path": picture.path.to_string_lossy(),
                "prompt": picture.prompt,
                "actor": picture.actor,
                "seed": picture.seed,
                "scores": scores.collect::<Map<String, Value>>(),
            });
            lines += &format!("{line}\n");
        }
        for group in &self.groups {
            let scores = self.columns.iter().map(|column| {
                let value = column.over(&group.members).map(|summary| {
                    json!({"mean": summary.mean, "sd": summary.sd, "count": summary.count})
                });
                (column.name.clone(), json!(value))
            });
            let mut line = json!({
                "command": "evaluate",
                "job": self.job,
                "kind": group.kind.name(),
                "pictures": group.members.len(),
                "scores": scores.collect::<Map<String, Value>>(),
            });
            if group.kind != GroupKind::Overall {
                line[group.kind.name()] = json!(group.name);
            }
            lines += &format!("{line}\n");
        }
        lines
    }

    /// The table as CSV (RFC 4180): a header line, a row for each picture, then a row for each group. The
    /// standard deviation of each column follows its value. A missing value is empty. Paths keep their bytes,
    /// which need not be UTF-8.
    ///
    /// # Errors
    /// Never fails, because the rows are written into memory and all have the same number of cells.
    pub fn csv(&self) -> Result<Vec<u8>> {
        let mut rows = csv::Writer::from_writer(Vec::new());
        let heading = ["kind", "path", "prompt", "actor", "seed", "pictures"].map(str::to_owned);
        let names = self
            .columns
            .iter()
            .flat_map(|column| [column.name.clone(), format!("{}_sd", column.name)]);
        rows.write_record(heading.into_iter().chain(names))?;
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        for (i, picture) in self.pictures.iter().enumerate() {
            let seed = picture
                .seed
                .map_or_else(String::new, |seed| seed.to_string());
            let facts: [&[u8]; 6] = [
                b"picture",
                picture.path.as_os_str().as_encoded_bytes(),
                picture.prompt.as_deref().unwrap_or_default().as_bytes(),
                picture.actor.as_bytes(),
                seed.as_bytes(),
                b"1",
            ];
            facts
                .into_iter()
                .try_for_each(|cell| rows.write_field(cell))?;
            for column in &self.columns {
                rows.write_field(number(column.of_picture(i)))?;
                rows.write_field("")?;
            }
            rows.write_record(None::<&[u8]>)?;
        }
        for group in &self.groups {
            let of = |kind| if group.kind == kind { &*group.name } else { "" };
            let count = group.members.len().to_string();
            let (prompt, actor) = (of(GroupKind::Prompt), of(GroupKind::Actor));
            let facts = [group.kind.name(), "", prompt, actor, "", &count];
            facts
                .into_iter()
                .try_for_each(|cell| rows.write_field(cell))?;
            for column in &self.columns {
                let summary = column.over(&group.members);
                rows.write_field(number(summary.map(|summary| summary.mean)))?;
                rows.write_field(number(summary.and_then(|summary| summary.sd)))?;
            }
            rows.write_record(None::<&[u8]>)?;
        }
        rows.into_inner().context("writing the table")
    }
}

/// Rows with aligned cells: the first column to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let lines = rows.iter().map(|row| {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(i, (cell, &width))| match i {
                0 => format!("{cell:width$}"),
                _ => format!("{cell:>width$}"),
            });
        format!("{}\n", cells.collect::<Vec<_>>().join("  "))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measures::column::ColumnValues;

    fn picture(name: &str, prompt: &str, actor: &str) -> PictureRow {
        PictureRow {
            path: PathBuf::from(name),
            prompt: Some(prompt.to_owned()),
            seed: Some(7),
            actor: actor.to_owned(),
            is_target: false,
        }
    }

    fn csv(table: &Table) -> String {
        let csv = table.csv().expect("memory is writable");
        String::from_utf8(csv).expect("the names are UTF-8")
    }

    fn column(name: &str, values: ColumnValues) -> Column {
        Column::new(name.to_owned(), values)
    }

    #[test]
    fn plain_pictures_beside_guided_ones_are_no_part_of_the_whole() {
        let pictures = vec![
            picture("a.png", "a cat", "cat"),
            picture("b.png", "a cat, asleep", "cat"),
            picture("c.png", "a cat", PLAIN),
        ];
        let values = ColumnValues::Pictures([0.5, 0.75, 0.0].map(Some).to_vec());
        let table = Table::new(pictures, vec![column("clip_i", values)], 1);
        let text = table.text();
        let overall = "2 pictures, without those of the plain model  0.6250 ± 0.1768\n";
        assert!(text.ends_with(overall), "{text}");
        assert!(text.contains("\na cat (1 picture) "), "{text}");
        let csv = csv(&table);
        assert!(
            csv.contains("picture,b.png,\"a cat, asleep\",cat,7,1,0.75,\n"),
            "{csv}"
        );
        assert!(csv.contains("overall,,,,,2,0.625,0.1767"), "{csv}");
        assert!(csv.contains("actor,,,plain,,1,0,\n"), "{csv}");
        assert_eq!(table.overall("clip_i").map(|found| found.mean), Some(0.625));
        assert_eq!(table.overall("clip_t"), None);
    }

    #[test]
    fn the_target_among_the_pictures_is_in_no_group() {
        let mut pictures = vec![
            picture("a.png", "a cat", "cat"),
            picture("b.png", "a cat", "cat"),
        ];
        pictures[0].is_target = true;
        let values = ColumnValues::Pictures(vec![None, Some(0.5)]);
        let csv = csv(&Table::new(pictures, vec![column("clip_i", values)], 1));
        for line in [
            "picture,a.png,a cat,cat,7,1,,\n",
            "prompt,,a cat,,,1,0.5,\n",
            "actor,,,cat,,1,0.5,\n",
            "overall,,,,,1,0.5,\n",
        ] {
            assert!(csv.contains(line), "{csv}");
        }
    }

    #[test]
    fn a_value_that_is_missing_is_null_in_json() {
        let pictures = vec![picture("a.png", "a cat", "cat")];
        let pairs = ColumnValues::Pairs(Vec::new());
        let table = Table::new(pictures, vec![column("clip_i_pairwise", pairs)], 1);
        assert_eq!(table.overall("clip_i_pairwise"), None);
        let json = table.json();
        let line: Value =
            serde_json::from_str(json.lines().next().expect("a picture")).expect("JSON");
        assert_eq!(line["scores"]["clip_i_pairwise"], Value::Null);
    }

    #[test]
    fn cells_are_quoted_as_rfc_4180_says() {
        let pictures = vec![picture("a \"b\".png", "a cat,\nasleep", "cat")];
        let values = ColumnValues::Pictures(vec![None]);
        let csv = csv(&Table::new(pictures, vec![column("clip_i", values)], 1));
        let row = "picture,\"a \"\"b\"\".png\",\"a cat,\nasleep\",cat,7,1,,\n";
        assert!(csv.contains(row), "{csv}");
    }
}
