//! Shell completions and the manual page.
use clap::CommandFactory;

use super::Output;
use crate::cli::{self, Cli};
use crate::error::{Error, Result};

/// `completions`: the completion script for a shell.
pub(super) fn completions(args: &cli::CompletionsArgs) -> Output {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "afterimage", &mut script);
    text(script)
}

/// `man`: one page, with a section for every command.
///
/// # Errors
/// The page cannot be rendered.
pub(super) fn manual() -> Result<Output> {
    let failed = |error: std::io::Error| Error::runtime("the manual page cannot be made").with_source(error);
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).manual("Afterimage").section("1");
    man.render_title(&mut page).map_err(failed)?;
    man.render_name_section(&mut page).map_err(failed)?;
    man.render_synopsis_section(&mut page).map_err(failed)?;
    man.render_description_section(&mut page).map_err(failed)?;
    man.render_options_section(&mut page).map_err(failed)?;
    for verb in command.get_subcommands() {
        page.extend(format!(".SH \"AFTERIMAGE {}\"\n", verb.get_name().to_uppercase()).bytes());
        let man = clap_mangen::Man::new(verb.clone());
        for render in [clap_mangen::Man::render_description_section, clap_mangen::Man::render_options_section] {
            let mut part = Vec::new();
            render(&man, &mut part).map_err(failed)?;
            // Make these subsections instead of sections.
            page.extend(String::from_utf8_lossy(&part).replace(".SH ", ".SS ").bytes());
        }
    }
    Ok(text(page))
}

fn text(bytes: Vec<u8>) -> Output {
    let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    Output { json: text.clone().into(), text, as_json: false }
}
