"""From questions to results: one command, its cells, one engine.

To follow a question: `session` opens the cells of a command, `cell_run` takes one of them from its
plan to its results, `cell_rows` turns its open rows into prompts and journals the answers, `asking`
keeps that going through signals and the death of an engine, `results` scores what is journaled.
`contexts` says what a prompt shows beside the question, `stages` what is asked before it is known.
"""
