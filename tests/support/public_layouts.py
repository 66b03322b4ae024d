"""One small file in the layout of each public dataset, made up from its documentation.

Every file asks the two questions of `QUESTIONS`; `LAYOUTS` says what must come out of it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

QUESTIONS = ["Which river runs through Vienna?", "Who wrote the novel Momo?"]
RIVER = ["Danube", "the Danube"]
AUTHOR = ["Michael Ende", "Ende"]
VIENNA = "Vienna lies on the Danube. It is old."
MOMO = "Momo is a novel. Michael Ende wrote it."
OTHER = "Graz lies on the Mur. It is old."


@dataclass(frozen=True)
class PublicLayout:
    """A file and what must come out of it.

    Attributes:
        name: Its file (or folder).
        write: Writes it.
        ids: The question ids; None where the file has none.
        answers: Of both questions.
        contexts: Of both questions; None where the layout has none.
        titles: Of the documents of both questions; None where the layout has none.
    """

    name: str
    write: Callable[[Path], object]
    ids: list[str] | None
    answers: tuple[list[str], list[str]]
    contexts: tuple[list[str], list[str]] | None = None
    titles: tuple[list[str], list[str]] | None = None


def as_json(content: Any, indent: int | None = None) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(content, indent=indent), "utf-8")


def as_lines(*rows: Any) -> Callable[[Path], object]:
    content = "".join(json.dumps(row) + "\n" for row in rows)
    return lambda path: path.write_bytes(
        gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode()
    )


def as_text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, "utf-8")


def as_parquet(*rows: dict[str, Any]) -> Callable[[Path], object]:
    return lambda path: pl.DataFrame(list(rows), infer_schema_length=None).write_parquet(path)


def squad_answers(*texts: str) -> list[dict[str, Any]]:
    return [{"text": text, "answer_start": 0} for text in texts]


def sentences(text: str) -> list[str]:
    first, second = text.split(". ")
    return [f"{first}.", f" {second}"]


def squad(version: str, **more: Any) -> dict[str, Any]:
    asked = [
        {"id": "s1", "question": QUESTIONS[0], "answers": squad_answers(*RIVER), **more},
        {"id": "s2", "question": QUESTIONS[1], "answers": squad_answers(*AUTHOR), **more},
    ]
    articles = [
        {"title": title, "paragraphs": [{"context": context, "qas": [row]}]}
        for title, context, row in (("Vienna", VIENNA, asked[0]), ("Momo", MOMO, asked[1]))
    ]
    return {"version": version, "data": articles}


def trivia_answer(value: str, other: str) -> dict[str, Any]:
    return {
        "value": value,
        "aliases": [value, other],
        "normalized_aliases": [value.lower(), other.lower()],
        "normalized_value": value.lower(),
        "matched_wiki_entity_name": "",
        "type": "WikipediaEntity",
    }


def trivia_web(number: int, question: str, value: str, other: str) -> dict[str, Any]:
    return {
        "Answer": {
            "Aliases": [value, other],
            "NormalizedAliases": [value.lower(), other.lower()],
            "NormalizedValue": value.lower(),
            "Type": "WikipediaEntity",
            "Value": value,
        },
        "EntityPages": [{"DocSource": "TagMe", "Filename": "Vienna.txt", "Title": "Vienna"}],
        "Question": question,
        "QuestionId": f"tc_{number}",
        "QuestionSource": "http://quiz.example/",
        "SearchResults": [
            {
                "Description": OTHER,
                "DisplayUrl": "a.example",
                "Filename": "1/1.txt",
                "Rank": 0,
                "Title": "Graz",
                "Url": "http://a.example/",
            }
        ],
    }


def trivia_hf(number: int, question: str, value: str, other: str) -> dict[str, Any]:
    return {
        "question": question,
        "question_id": f"tc_{number}",
        "question_source": "http://quiz.example/",
        "entity_pages": {
            "doc_source": ["TagMe"],
            "filename": ["Vienna.txt"],
            "title": ["Vienna"],
            "wiki_context": [VIENNA],
        },
        "search_results": {
            "description": ["short"],
            "filename": ["1/1.txt"],
            "rank": [0],
            "title": ["Graz"],
            "url": ["http://a.example/"],
            "search_context": [OTHER],
        },
        "answer": trivia_answer(value, other),
    }


def hotpot(question: str, name: str, answer: str, gold: tuple[str, str]) -> dict[str, Any]:
    title, text = gold
    return {
        "_id": name,
        "question": question,
        "answer": answer,
        "type": "bridge",
        "level": "hard",
        "supporting_facts": [[title, 0], [title, 1]],
        "context": [["Graz", sentences(OTHER)], [title, sentences(text)]],
    }


def hotpot_hf(question: str, name: str, answer: str, gold: tuple[str, str]) -> dict[str, Any]:
    title, text = gold
    return {
        "id": name,
        "question": question,
        "answer": answer,
        "type": "bridge",
        "level": "hard",
        "supporting_facts": {"title": [title, title], "sent_id": [0, 1]},
        "context": {"title": ["Graz", title], "sentences": [sentences(OTHER), sentences(text)]},
    }


def musique(question: str, name: str, answers: list[str], gold: tuple[str, str]) -> dict[str, Any]:
    paragraphs = [("Graz", OTHER, False), (*gold, True)]
    return {
        "id": name,
        "paragraphs": [
            {"idx": at, "title": title, "paragraph_text": text, "is_supporting": supports}
            for at, (title, text, supports) in enumerate(paragraphs)
        ],
        "question": question,
        "question_decomposition": [{"id": 1, "question": "q", "answer": "a"}],
        "answer": answers[0],
        "answer_aliases": answers[1:],
        "answerable": True,
    }


def kilt(question: str, name: str, answers: list[str]) -> dict[str, Any]:
    evidence = {"wikipedia_id": "1", "title": "T", "start_paragraph_id": 1}
    return {
        "id": name,
        "input": question,
        "meta": {},
        "output": [
            *({"answer": answer} for answer in answers),
            {"provenance": [evidence]},
            {"answer": answers[0], "provenance": [evidence]},
        ],
    }


def passage(title: str, text: str, **more: Any) -> dict[str, Any]:
    return {"title": title, "text": text, **more}


def dpr(question: str, answers: list[str], gold: tuple[str, str]) -> dict[str, Any]:
    return {
        "dataset": "nq_dev",
        "question": question,
        "answers": answers,
        "positive_ctxs": [passage(*gold, score=1000, title_score=1, passage_id=gold[0])],
        "negative_ctxs": [],
        "hard_negative_ctxs": [passage("Graz", OTHER, score=9.5, title_score=0, psg_id="g1")],
    }


def fid(question: str, name: str, answers: list[str]) -> dict[str, Any]:
    ctxs = [("Graz", OTHER), ("Vienna", VIENNA), ("Momo", MOMO)]
    return {
        "id": name,
        "question": question,
        "target": answers[0],
        "answers": answers,
        "ctxs": [passage(*ctx, id=str(at), score=str(9 - at)) for at, ctx in enumerate(ctxs)],
    }


def marco(question: str, number: int, answers: list[str], gold: str) -> dict[str, Any]:
    return {
        "answers": answers,
        "passages": {
            "is_selected": [0, 1],
            "passage_text": [OTHER, gold],
            "url": ["http://a.example", "http://b.example"],
        },
        "query": question,
        "query_id": number,
        "query_type": "ENTITY",
        "wellFormedAnswers": [],
    }


def popqa(number: int, question: str, answers: list[str]) -> list[str]:
    listed = json.dumps(answers).replace('"', '""')
    return [str(number), "Vienna", "river", answers[0], question, f'"{listed}"']


def write_beir(folder: Path) -> None:
    (folder / "qrels").mkdir(parents=True)
    texts = [("d1", "Graz", OTHER), ("d2", "Vienna", VIENNA), ("d3", "Momo", MOMO)]
    as_lines(*({"_id": i, "title": t, "text": x, "metadata": {}} for i, t, x in texts))(
        folder / "corpus.jsonl"
    )
    asked = [*QUESTIONS, "Not judged?"]
    as_lines(*({"_id": f"q{n}", "text": q, "metadata": {}} for n, q in enumerate(asked)))(
        folder / "queries.jsonl"
    )
    judged = "query-id\tcorpus-id\tscore\nq0\td2\t1\nq0\td1\t0\nq1\td3\t2\n"
    as_text(judged)(folder / "qrels" / "test.tsv")


_GOLD = (("Vienna", VIENNA), ("Momo", MOMO))
_BOTH = (RIVER, AUTHOR)
_FIRST = (RIVER[:1], AUTHOR[:1])
_TITLED = ([f"Vienna\n{VIENNA}"], [f"Momo\n{MOMO}"])
_BARE = ([VIENNA], [MOMO])
_PAGES = (["Graz", "Vienna"], ["Graz", "Momo"])
_OWN = (["Vienna"], ["Momo"])


def _each(make: Callable[..., Any], *columns: Any) -> list[Any]:
    return [make(*arguments) for arguments in zip(QUESTIONS, *columns, strict=True)]


LAYOUTS: dict[str, PublicLayout] = {
    "BoolQ, DROP on Hugging Face": PublicLayout(
        "drop.parquet",
        as_parquet(
            *_each(
                lambda question, answers, gold: {
                    "query_id": question[:3],
                    "passage": gold[1],
                    "question": question,
                    "answers_spans": {"spans": answers, "types": ["span", "span"]},
                },
                _BOTH,
                _GOLD,
            )
        ),
        ["Whi", "Who"],
        _BOTH,
        _BARE,
    ),
    "AmbigQA": PublicLayout(
        "dev_light.json",
        as_json(
            _each(
                lambda question, name, answers: {
                    "id": name,
                    "question": question,
                    "annotations": [{"type": "singleAnswer", "answer": answers}],
                },
                ("a1", "a2"),
                _BOTH,
            )
        ),
        ["a1", "a2"],
        _BOTH,
    ),
    "Natural Questions, Hugging Face": PublicLayout(
        "nq.parquet",
        as_parquet(
            *_each(
                lambda question, name, answers: {
                    "id": name,
                    "document": {"title": "T", "tokens": {"token": ["a"], "is_html": [False]}},
                    "question": {"text": question, "tokens": question.split()},
                    "annotations": {
                        "id": ["1", "2"],
                        "short_answers": [{"text": answers[:1]}, {"text": answers[1:]}],
                        "yes_no_answer": [-1, -1],
                    },
                },
                ("n1", "n2"),
                _BOTH,
            )
        ),
        ["n1", "n2"],
        _BOTH,
    ),
    "RAGAS": PublicLayout(
        "ragas.jsonl",
        as_lines(
            *_each(
                lambda question, answers, gold: {
                    "question": question,
                    "answer": "what a model said",
                    "contexts": [gold[1]],
                    "ground_truths": answers,
                },
                _BOTH,
                _GOLD,
            )
        ),
        None,
        _BOTH,
        _BARE,
    ),
    "MMLU": PublicLayout(
        "mmlu.parquet",
        as_parquet(
            *_each(
                lambda question, answers, right: {
                    "question": question,
                    "choices": [answers[right], "Mur"] if right == 0 else ["Mur", answers[right]],
                    "answer": right,
                },
                _BOTH,
                (0, 1),
            )
        ),
        None,
        (RIVER[:1], AUTHOR[1:]),
    ),
    "ARC, CommonsenseQA": PublicLayout(
        "arc.jsonl",
        as_lines(
            *_each(
                lambda question, name, answers, labels: {
                    "id": name,
                    "question": question,
                    "choices": {"text": ["Mur", answers[0]], "label": labels},
                    "answerKey": labels[1],
                },
                ("c1", "c2"),
                _BOTH,
                (["A", "B"], ["1", "2"]),
            )
        ),
        ["c1", "c2"],
        _FIRST,
    ),
    "SQuAD 1.1": PublicLayout(
        "train-v1.1.json", as_json(squad("1.1")), ["s1", "s2"], _BOTH, _BARE, _OWN
    ),
    "SQuAD 2.0": PublicLayout(
        "dev-v2.0.json",
        as_json(squad("v2.0", is_impossible=False), indent=1),
        ["s1", "s2"],
        _BOTH,
        _BARE,
        _OWN,
    ),
    "SQuAD, Hugging Face": PublicLayout(
        "squad.parquet",
        as_parquet(
            *(
                {
                    "id": name,
                    "title": title,
                    "context": text,
                    "question": question,
                    "answers": {"text": answers, "answer_start": [0, 1]},
                }
                for question, name, answers, (title, text) in zip(
                    QUESTIONS, ("s1", "s2"), _BOTH, _GOLD, strict=True
                )
            )
        ),
        ["s1", "s2"],
        _BOTH,
        _BARE,
        _OWN,
    ),
    "MRQA": PublicLayout(
        "mrqa.jsonl.gz",
        as_lines(
            *(
                {
                    "id": "",
                    "context": text,
                    "qas": [{"qid": qid, "question": question, "answers": answers}],
                }
                for question, qid, answers, (_, text) in zip(
                    QUESTIONS, ("m1", "m2"), _BOTH, _GOLD, strict=True
                )
            )
        ),
        ["m1", "m2"],
        _BOTH,
        _BARE,
    ),
    "TriviaQA, web": PublicLayout(
        "web-dev.json",
        as_json(
            {
                "Data": [
                    trivia_web(n, question, *answers)
                    for n, (question, answers) in enumerate(zip(QUESTIONS, _BOTH, strict=True))
                ],
                "Domain": "Web",
                "Version": 1.0,
            },
            indent=4,
        ),
        ["tc_0", "tc_1"],
        _BOTH,
        None,
        (["Graz"], ["Graz"]),
    ),
    "TriviaQA, Hugging Face": PublicLayout(
        "trivia.parquet",
        as_parquet(
            trivia_hf(0, QUESTIONS[0], *RIVER),
            trivia_hf(1, QUESTIONS[1], *AUTHOR),
        ),
        ["tc_0", "tc_1"],
        _BOTH,
        None,
        (["Vienna", "Graz"], ["Vienna", "Graz"]),
    ),
    "HotpotQA": PublicLayout(
        "hotpot_dev_distractor_v1.json",
        as_json(_each(hotpot, ("h1", "h2"), (RIVER[0], AUTHOR[0]), _GOLD)),
        ["h1", "h2"],
        _FIRST,
        _TITLED,
        _PAGES,
    ),
    "HotpotQA, Hugging Face": PublicLayout(
        "hotpot.parquet",
        as_parquet(*_each(hotpot_hf, ("h1", "h2"), (RIVER[0], AUTHOR[0]), _GOLD)),
        ["h1", "h2"],
        _FIRST,
        _TITLED,
        _PAGES,
    ),
    "2WikiMultiHopQA": PublicLayout(
        "2wiki.json",
        as_json(
            [
                {**row, "evidences": [["Vienna", "river", "Danube"]], "evidences_id": []}
                for row in _each(hotpot, ("w1", "w2"), (RIVER[0], AUTHOR[0]), _GOLD)
            ]
        ),
        ["w1", "w2"],
        _FIRST,
        _TITLED,
        _PAGES,
    ),
    "2WikiMultiHopQA, texts": PublicLayout(
        "2wiki.parquet",
        as_parquet(
            *(
                {
                    **row,
                    "context": json.dumps(row["context"]),
                    "supporting_facts": json.dumps(row["supporting_facts"]),
                }
                for row in _each(hotpot, ("w1", "w2"), (RIVER[0], AUTHOR[0]), _GOLD)
            )
        ),
        ["w1", "w2"],
        _FIRST,
        _TITLED,
        _PAGES,
    ),
    "MuSiQue": PublicLayout(
        "musique_ans_v1.0_dev.jsonl",
        as_lines(*_each(musique, ("2hop__1", "2hop__2"), _BOTH, _GOLD)),
        ["2hop__1", "2hop__2"],
        _BOTH,
        _TITLED,
        _PAGES,
    ),
    "PopQA": PublicLayout(
        "popQA.tsv",
        as_text(
            "id\tsubj\tprop\tobj\tquestion\tpossible_answers\n"
            + "".join(
                "\t".join(popqa(n, question, answers)) + "\n"
                for n, (question, answers) in enumerate(zip(QUESTIONS, _BOTH, strict=True))
            )
        ),
        ["0", "1"],
        _BOTH,
    ),
    "PopQA, Hugging Face": PublicLayout(
        "popqa.parquet",
        as_parquet(
            *(
                {"id": n, "obj": answers[0], "question": q, "possible_answers": json.dumps(answers)}
                for n, (q, answers) in enumerate(zip(QUESTIONS, _BOTH, strict=True))
            )
        ),
        ["0", "1"],
        _BOTH,
    ),
    "WebQuestions": PublicLayout(
        "webquestions.examples.test.json",
        as_json(
            [
                {
                    "url": "http://a.example",
                    "targetValue": f'(list (description "{a}") (description {b}))',
                    "utterance": question,
                }
                for question, a, b in (
                    (QUESTIONS[0], "Danube", "Donau"),
                    (QUESTIONS[1], "Michael Ende", "Ende"),
                )
            ]
        ),
        None,
        (["Danube", "Donau"], AUTHOR),
    ),
    "WebQuestions, factoid": PublicLayout(
        "main.json",
        as_json(_each(lambda q, i, a: {"qId": i, "qText": q, "answers": a}, ("w0", "w1"), _BOTH)),
        ["w0", "w1"],
        _BOTH,
    ),
    "KILT": PublicLayout(
        "nq-dev-kilt.jsonl", as_lines(*_each(kilt, ("k1", "k2"), _BOTH)), ["k1", "k2"], _BOTH
    ),
    "NQ-open": PublicLayout(
        "NQ-open.dev.jsonl",
        as_lines(*_each(lambda q, a: {"question": q, "answer": a}, _BOTH)),
        None,
        _BOTH,
    ),
    "NQ-open without annotations": PublicLayout(
        "NQ-open.efficientqa.dev.1.1.no-annotations.jsonl",
        as_lines(*_each(lambda q: {"question": q})),
        None,
        ([], []),
    ),
    "FlashRAG": PublicLayout(
        "test.jsonl",
        as_lines(
            *_each(
                lambda q, i, a: {"id": i, "question": q, "golden_answers": a, "metadata": {}},
                ("test_0", "test_1"),
                _BOTH,
            )
        ),
        ["test_0", "test_1"],
        _BOTH,
    ),
    "FlashRAG, HotpotQA": PublicLayout(
        "dev.jsonl",
        as_lines(
            *(
                {
                    "id": row["id"],
                    "question": row["question"],
                    "golden_answers": [row["answer"]],
                    "metadata": {
                        "type": "bridge",
                        "supporting_facts": row["supporting_facts"],
                        "context": row["context"],
                    },
                }
                for row in _each(hotpot_hf, ("dev_0", "dev_1"), (RIVER[0], AUTHOR[0]), _GOLD)
            )
        ),
        ["dev_0", "dev_1"],
        _FIRST,
        _TITLED,
        _PAGES,
    ),
    "DPR": PublicLayout(
        "biencoder-nq-dev.json",
        as_json(_each(dpr, _BOTH, _GOLD), indent=4),
        None,
        _BOTH,
        _TITLED,
        (["Vienna", "Graz"], ["Momo", "Graz"]),
    ),
    "FiD": PublicLayout(
        "fid.json",
        as_json(_each(fid, ("f1", "f2"), _BOTH)),
        ["f1", "f2"],
        _BOTH,
        None,
        (["Graz", "Vienna", "Momo"], ["Graz", "Vienna", "Momo"]),
    ),
    "MS MARCO": PublicLayout(
        "marco.parquet",
        as_parquet(*_each(marco, (7, 8), _BOTH, (VIENNA, MOMO))),
        ["7", "8"],
        _BOTH,
        _BARE,
        (["", ""], ["", ""]),
    ),
    "ChineseSimpleQA": PublicLayout(
        "chinese_simpleqa.jsonl",
        as_lines(
            *_each(
                lambda q, i, a: {
                    "id": i,
                    "primary_category": "地理",
                    "secondary_category": "河流",
                    "question": q,
                    "answer": a,
                    "urls": ["http://a.example"],
                },
                ("c1", "c2"),
                (RIVER[0], AUTHOR[0]),
            )
        ),
        ["c1", "c2"],
        _FIRST,
    ),
    "SimpleQA Verified": PublicLayout(
        "simpleqa_verified.csv",
        as_text(
            "original_index,problem,answer,topic,answer_type,multi_step,urls\n"
            f"5,{QUESTIONS[0]},Danube,Geography,Place,False,http://a.example\n"
            f"9,{QUESTIONS[1]},Michael Ende,Art,Person,False,http://a.example\n"
        ),
        None,
        _FIRST,
    ),
    "BEIR": PublicLayout("scifact", write_beir, ["q0", "q1"], ([], []), _TITLED, _OWN),
}
