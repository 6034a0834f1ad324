//! Sheets of pictures: contact sheets, comparisons, tables.
//!
//! A text chunk of each sheet lists the pictures that it shows and their places. A sheet that is missing, that another
//! command has replaced, or whose pictures have changed since is drawn again, without loading the model.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::session::Session;
use crate::io::checksum::crc32_of;
use crate::pictures::contact_sheet::{ContactSheet, Labels};
use crate::pictures::png::{open_png, read_png_text, save_png};

/// Keyword of this text chunk.
const KEYWORD: &str = "oneactor sheet";

/// The most columns of a comparison; more pictures continue in further rows.
const COMPARISON_COLUMNS: usize = 8;

/// A sheet of pictures on disk.
pub(crate) struct Sheet {
    path: PathBuf,
    /// The pictures, each with its place (counted row by row) and its label.
    cells: Vec<(usize, PathBuf, String)>,
    /// `None` makes the sheet nearly square.
    columns: Option<usize>,
    row_labels: Vec<String>,
    column_labels: Vec<String>,
}

impl Sheet {
    /// A contact sheet, numbered from 0.
    pub fn numbered<P: AsRef<Path>>(path: PathBuf, pictures: &[P], columns: Option<usize>) -> Self {
        let numbered = pictures.iter().enumerate();
        let cells = numbered.map(|(i, picture)| (i, picture.as_ref().to_owned(), i.to_string()));
        Self {
            path,
            cells: cells.collect(),
            columns,
            row_labels: Vec::new(),
            column_labels: Vec::new(),
        }
    }

    /// Rows of plain pictures and, below each row, the same pictures guided by `method`.
    pub fn comparison<P: AsRef<Path>>(
        path: PathBuf,
        plain: &[P],
        (method, guided): (&str, &[P]),
    ) -> Self {
        let columns = plain.len().clamp(1, COMPARISON_COLUMNS);
        let mut cells = Vec::new();
        let mut labels = Vec::new();
        for (plain, guided) in plain.chunks(columns).zip(guided.chunks(columns)) {
            for (label, row) in [("plain", plain), (method, guided)] {
                let places = (labels.len() * columns..).zip(row);
                cells.extend(
                    places.map(|(i, picture)| (i, picture.as_ref().to_owned(), String::new())),
                );
                labels.push(label.to_owned());
            }
        }
        Self {
            path,
            cells,
            columns: Some(columns),
            row_labels: labels,
            column_labels: Vec::new(),
        }
    }

    /// A table of pictures, given row by row, with a label for each row and each column.
    pub fn table<P: AsRef<Path>>(
        path: PathBuf,
        pictures: &[P],
        rows: Vec<String>,
        columns: Vec<String>,
    ) -> Self {
        let places = pictures.iter().enumerate();
        let cells = places.map(|(i, picture)| (i, picture.as_ref().to_owned(), String::new()));
        Self {
            path,
            cells: cells.collect(),
            columns: Some(columns.len()),
            row_labels: rows,
            column_labels: columns,
        }
    }

    /// The path of the sheet.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file exists and shows these pictures as they are now.
    pub fn is_current(&self) -> bool {
        let text = self.text().ok();
        text.is_some() && text == text_of(&self.path)
    }

    /// Draws the sheet and lists it, if its pictures `are_new` or the file is not current.
    ///
    /// # Errors
    /// When a picture cannot be read or the sheet cannot be written.
    pub fn keep(&self, session: &Session, kind: &str, are_new: bool) -> Result<()> {
        if self.cells.is_empty() {
            return Ok(());
        }
        let text = self.text()?;
        if !are_new && text_of(&self.path).as_ref() == Some(&text) {
            return Ok(());
        }
        self.save(&text)?;
        session.wrote(&self.path, kind, Value::Null);
        Ok(())
    }

    /// Draws the sheet. Pictures are read one at a time, so that they need not fit into memory together.
    fn save(&self, text: &str) -> Result<()> {
        let Some(last) = self.cells.iter().map(|(index, ..)| *index).max() else {
            return Ok(());
        };
        let labels = Labels {
            rows: &self.row_labels,
            columns: &self.column_labels,
        };
        let mut sheet = None;
        for (index, picture, label) in &self.cells {
            let picture = open_png(picture)?;
            let sheet = match &mut sheet {
                Some(sheet) => sheet,
                empty => {
                    let size = picture.dimensions();
                    let new = ContactSheet::with_labels(last + 1, size, self.columns, labels)?;
                    empty.insert(new)
                }
            };
            sheet.place(*index, &picture, label);
        }
        let Some(sheet) = sheet else {
            return Ok(());
        };
        save_png(&self.path, &sheet.finish(), &[(KEYWORD, text)])
    }

    /// The text chunk: each picture with its place, its label and the CRC-32 of its file.
    fn text(&self) -> Result<String> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let cell = |(index, picture, label): &(usize, PathBuf, String)| -> Result<Value> {
            let name = picture.strip_prefix(folder).unwrap_or(picture);
            Ok(json!([
                index,
                name.to_string_lossy(),
                crc32_of(picture)?,
                label
            ]))
        };
        let cells = self.cells.iter().map(cell).collect::<Result<Vec<_>>>()?;
        let told = json!({
            "cells": cells,
            "columns": self.columns,
            "row_labels": self.row_labels,
            "column_labels": self.column_labels,
        });
        Ok(told.to_string())
    }
}

/// Removes a sheet of this program that will not be drawn again and whose pictures have changed or are gone.
///
/// # Errors
/// When the sheet cannot be removed.
pub(crate) fn remove_outdated(session: &Session, path: &Path) -> Result<()> {
    let told = text_of(path).and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let Some(told) = told else {
        return Ok(());
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let is_as_it_was = |cell: &Value| {
        let name = cell[1].as_str().unwrap_or_default();
        crc32_of(&folder.join(name)).is_ok_and(|crc32| cell[2] == crc32)
    };
    if told["cells"]
        .as_array()
        .into_iter()
        .flatten()
        .all(is_as_it_was)
    {
        return Ok(());
    }
    fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    session.reporter.note(&format!(
        "removed {}, because it showed pictures that have changed since",
        path.display()
    ));
    Ok(())
}

/// The text chunk of the sheet at `path`; `None` if there is no sheet of this program.
fn text_of(path: &Path) -> Option<String> {
    let texts = read_png_text(path).ok()?;
    let own = texts.into_iter().find(|(keyword, _)| keyword == KEYWORD);
    own.map(|(_, text)| text)
}
