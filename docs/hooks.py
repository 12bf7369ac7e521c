"""MkDocs hook that adds the generated pages and their navigation to the site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

import arithmetic_table
import compression_table
import continual_table
import diffusion_table
import federated_table
import generate
import latency_table
import modality_tables
import proof_tables
import ranking_table
import representation_table
import smollm2_table
import tree_table
import trl_table
import weights_table


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the empty sections of the navigation."""
    sections: dict[str, list[Any]] = generate.navigation()
    for entry in config.nav or []:
        for title in entry:
            if title in sections:
                entry[title] = sections[title]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, which exist only in the built site."""
    for path, text in generate.pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Insert measured tables, and link the names of methods in the guide to their choice."""
    if page.file.src_uri == "choose.md":
        return generate.link_methods(ranking_table.insert_table(markdown))
    markdown = tree_table.insert_table(modality_tables.insert_tables(markdown))
    markdown = arithmetic_table.insert_table(markdown)
    markdown = compression_table.insert_table(markdown)
    markdown = continual_table.insert_table(markdown)
    markdown = diffusion_table.insert_tables(federated_table.insert_table(markdown))
    markdown = smollm2_table.insert_table(trl_table.insert_table(markdown))
    markdown = representation_table.insert_table(weights_table.insert_table(markdown))
    return proof_tables.insert_table(latency_table.insert_table(markdown))
