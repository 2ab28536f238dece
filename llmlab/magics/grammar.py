"""The verbs of %llm and their flags: the one table that parsing, help and Tab read.

This file must not know what a verb does: each names its action by "module:function" below llmlab.magics.verbs.
"""

from __future__ import annotations

from llmlab.magics.defaults import FORMATS
from llmlab.magics.options import (
    Argument,
    Option,
    Verb,
    escapes,
    literal,
    number,
    numbers,
    pair,
    prices,
    variable,
    whole,
)

_HELP = Option(("-h", "--help"), "what this verb does, and its flags")
_SHOW_CODE = Option(("--show-code",), "print the Python call behind this line instead of making it")
_COMMON = (_SHOW_CODE, _HELP)

_SAMPLING = (
    Option(("-s", "--system"), "system message, or @name for the text in a variable", "SYSTEM|@var"),
    Option(("-t", "--temperature"), "0 = always the most likely token", "TEMP", number),
    Option(("-p", "--top-p"), "keep the most likely tokens up to this mass", "TOP_P", number),
    Option(("-k", "--top-k"), "keep this many most likely tokens; 0 = all", "TOP_K", whole),
    Option(("--min-p",), "drop tokens less likely than this share of the best", "MIN_P", number),
    Option(("-n", "--max-tokens"), "the longest answer, in tokens", "MAX_TOKENS", whole),
    Option(("--seed",), "same seed, same answer", "N", whole),
    Option(
        ("--stop",), r"end the answer before this text (\n = line break); may be repeated", "S", escapes, repeat=True
    ),
    Option(("--logprobs",), "also the K most likely tokens at each place", "K", whole),
    Option(
        ("--schema",),
        "answer in JSON that follows the JSON schema (a dict) in this variable",
        "VAR",
        variable,
        live="variable",
    ),
    Option(("--raw-prompt",), "send the text as it is, without the chat template"),
    Option(("--timeout",), "stop after this many seconds and keep what came", "S", number),
)
_RESULT = (
    Option(("-o", "--out"), "also assign the result to this variable", "VAR", variable, live="variable"),
    Option(("-q", "--quiet"), "show nothing"),
    Option(("--no-expand",), "leave {names} in the prompt as they are"),
    Option(("--strict",), "a {name} that is no variable is an error"),
)
_ASK = (
    *_SAMPLING[:8],
    Option(("-f", "--format"), f"how the answer is shown: {', '.join(FORMATS)}", "FORMAT", choices=FORMATS),
    *_RESULT,
    Option(("--no-stream",), "show the answer when it is complete"),
    Option(("-c", "--chat"), "go on with the conversation"),
    Option(("--reset",), "forget the conversation first"),
    *_SAMPLING[8:],
    Option(("--show-prompt",), "print the exact text and token ids that were sent"),
    *_COMMON,
)
_NAME = Argument("NAME", "the name of a loaded engine (`%llm ps`)", required=False, live="handle")
_QUESTION = Argument("Q", "a question of the lab: Q1", live="question")
_RUN = Argument("RUN", "a variable that holds a run, a trace or a result", required=False, live="variable")

PROMPT = Verb(
    "", "Ask the current engine; anything that is not a verb is a prompt.", "asking:ask",
    options=_ASK, free_text=True, title="%llm PROMPT",
)  # fmt: skip
CELL = Verb(
    "", "Ask the engine NAME, or the current one; the prompt is the cell below.", "asking:ask",
    (_NAME,), _ASK, form="cell", title="%%llm [NAME]",
)  # fmt: skip
STATUS = Verb("", "Engines, memory, defaults, and what to type next.", "status:status", options=_COMMON, title="%llm")

_TABLE = (
    Verb(
        "load", "Load MODEL in an engine, in a process of its own.", "engines:load",
        (Argument("MODEL", "an embedded model, a folder, a .gguf file, a Hub repo; or a trace file", live="model"),),
        (
            Option(("-e", "--engine"), "the engine; auto = the first that runs here", "ENGINE", live="engine"),
            Option(("--as",), "the name to use it by", "NAME"),
            Option(("-q", "--quant"), "how the weights are stored: F16, Q8_0, Q4_1, ...", "QUANT", live="quant"),
            Option(("--dtype",), "the type the engine computes in", "D"),
            Option(("--ctx",), "the longest sequence, prompt and answer, in tokens", "N", whole),
            Option(("--seqs",), "how many requests may run at once", "N", whole),
            Option(("--kv-tokens",), "room of the KV cache, in tokens", "N", whole),
            Option(("--step-tokens",), "token budget of one step", "N", whole),
            Option(("--block-size",), "tokens in a KV block (engines with blocks)", "N", whole),
            Option(("--lora",), "a LoRA adapter to apply", "PATH"),
            Option(("--seed",), "of requests that give none", "N", whole),
            Option(("--opt",), "options of the engine itself", "k=v", pair, pairs=True),
            Option(("--dry-run",), "say whether it fits in memory, and load nothing"),
            *_COMMON,
        ),
        title="%llm load MODEL",
    ),
    Verb("ps", "The loaded engines.", "engines:ps", options=_COMMON, title="%llm ps"),
    Verb(
        "use", "Make NAME the engine that answers.", "engines:use",
        (Argument("NAME", "the name of a loaded engine (`%llm ps`)", live="handle"),), _COMMON, title="%llm use NAME",
    ),
    Verb(
        "unload", "End an engine and give its memory back.", "engines:unload",
        (_NAME,), (Option(("--all",), "end all of them"), *_COMMON), title="%llm unload [NAME]",
    ),
    Verb(
        "logs", "What the engine itself printed.", "engines:logs",
        (_NAME,), (Option(("-n", "--lines"), "how many of the last lines", "N", whole), *_COMMON),
        title="%llm logs [NAME]",
    ),
    Verb(
        "models", "The models known by name, and which forms of them are made.", "engines:models",
        options=_COMMON, title="%llm models",
    ),
    Verb(
        "doctor", "What this machine can run, and what to type for the rest.", "engines:doctor",
        options=_COMMON, title="%llm doctor",
    ),
    Verb(
        "batch", "Many prompts at once, one a line (`---` between longer ones).", "batch:batch",
        (_NAME,),
        (
            Option(("--rate",), "requests a second, arriving at random (Poisson)", "R", number),
            Option(("--burst",), "all arrive at once (the default)"),
            Option(("--file",), "read the prompts from a .txt, .jsonl or .csv file", "FILE", live="file"),
            Option(("--var",), "take the prompts from a list in this variable", "VAR", variable, live="variable"),
            *_SAMPLING, *_RESULT, *_COMMON,
        ),
        form="both", title="%%llm batch [NAME]",
    ),
    Verb(
        "compare", "The same prompt on several engines, quants or settings, side by side.",
        "compare:compare",
        options=(
            Option(("-e", "--engines"), "names of loaded engines (all of them)", "A B", live="handle", many=True),
            Option(
                ("--grid",), "a column for each value: temperature=0,0.7 quant=F16,Q8_0", "k=v,v", pair, pairs=True
            ),
            Option(("--together",), "ask all columns at once; then they share the machine, and speeds do not compare"),
            Option(("--at-once",), "how many prompts a column answers together (1)", "N", whole),
            Option(("--file",), "the prompts of a .jsonl file; broken lines are told by number", "FILE", live="file"),
            Option(
                ("--var",), "the prompts in this variable: a list, or a DataFrame with a column `prompt`", "VAR",
                variable, live="variable",
            ),
            Option(("--limit",), "only the first N prompts", "N", whole),
            Option(("--diff",), "show which words differ"),
            Option(("--blind",), "hide the names until you have voted"),
            Option(("--no-causes",), "do not test why answers part"),
            Option(("--panel",), "pick engines and settings by hand, and type there"),
            *_SAMPLING, *_RESULT, *_COMMON,
        ),
        form="both", title="%%llm compare",
    ),
    Verb(
        "mem", "Memory of the engine: its process, weights, KV cache; or KV use of a RUN.", "status:mem",
        (Argument("RUN", "a variable that holds a run", required=False, live="variable"),), _COMMON,
        title="%llm mem [RUN]",
    ),
    Verb(
        "kv", "Who holds the KV cache, step by step: of a RUN, or of the last one.", "views:kv",
        (_RUN,), _COMMON, title="%llm kv [RUN]",
    ),
    Verb(
        "timeline", "What each request did in each step: prefill, decode, wait.", "views:timeline",
        (_RUN,), _COMMON, title="%llm timeline [RUN]",
    ),
    Verb(
        "tokens", "How TEXT is cut into tokens; of a result in a variable, how likely each was.", "views:tokens",
        options=_COMMON, free_text=True, title="%llm tokens TEXT",
    ),
    Verb("pause", "Hold the engine after its current step.", "driving:pause", options=_COMMON, title="%llm pause"),
    Verb(
        "step", "Let a paused engine take N steps (1).", "driving:step",
        (Argument("N", "how many steps", required=False, convert=whole),), _COMMON, title="%llm step [N]",
    ),
    Verb("resume", "Let the engine run freely again.", "driving:resume", options=_COMMON, title="%llm resume"),
    Verb(
        "slow", "Slow motion: SECONDS between steps; 0 = full speed.", "driving:slow",
        (Argument("SECONDS", "seconds between steps", convert=number),), _COMMON, title="%llm slow SECONDS",
    ),
    Verb(
        "parity", "Whether two engines compute the same: tokens, settings, logits, answers.", "parity:parity",
        (
            Argument("A", "the name of a loaded engine; without names, the two that are loaded", False, live="handle"),
            Argument("B", "the name of another one", False, live="handle"),
        ),
        (Option(("-n", "--max-tokens"), "of each greedy answer, in tokens", "N", whole), *_RESULT[:2], *_COMMON),
        title="%llm parity [A] [B]",
    ),
    Verb(
        "bench", "How engines do under load, and which one to take.", "bench:bench",
        options=(
            Option(("-e", "--engines"), "names of loaded engines (the current one)", "A B", live="handle", many=True),
            Option(("--workload",), "what is asked, and in which rhythm (poisson)", "NAME", live="workload"),
            Option(("--sweep",), "the loads: requests a second, or users, as the workload has it", "1,2,4", numbers),
            Option(("--slo",), "limits in seconds of which goodput is made: ttft, tpot, e2e", "ttft=1,tpot=0.1"),
            Option(("-n", "--num-requests"), "requests at each load", "N", whole),
            Option(("--repeats",), "how often each load is measured (2)", "N", whole),
            Option(("--seed",), "same seed, same requests at the same times", "N", whole),
            Option(("--report",), "write a report that chooses an engine (.html, .md, .pdf)", "FILE", live="file"),
            Option(("--price",), "of an hour of the machine, or of each engine's: a=0.9,b=0.1", "PRICE", prices),
            Option(("--currency",), "of the price", "EUR"),
            *_RESULT[:2], *_COMMON,
        ),
        title="%llm bench",
    ),
    Verb(
        "trace save", "Write what the engine did to FILE (.jsonl, .jsonl.gz).", "traces:save",
        (Argument("FILE", "where to write", live="file"),), _COMMON, title="%llm trace save FILE",
    ),
    Verb(
        "trace load", "Read a trace; it is the value of the line.", "traces:load",
        (Argument("FILE", "a trace file", live="file"),), _COMMON, title="%llm trace load FILE",
    ),
    Verb(
        "trace replay", "Play a recorded trace again, as it was.", "traces:replay",
        (Argument("FILE", "a trace file", live="file"),),
        (
            Option(("--speed",), "1 = as fast as it was, 2 = twice as fast, 0 = no waiting", "X", number),
            Option(("--as",), "keep it loaded, under this name", "NAME"),
            Option(
                ("--what-if",), "simulate the same requests with changes: policy=static block=32 kv_tokens=4096 ...",
                "k=v", pair, pairs=True,
            ),
            *_RESULT[:2],
            *_COMMON,
        ),
        title="%llm trace replay FILE",
    ),
    Verb(
        "trace export", "Write what the engine did for another viewer: perfetto = ui.perfetto.dev, chrome://tracing.",
        "traces:export",
        (
            Argument("FORMAT", "perfetto", choices=("perfetto",)),
            Argument("FILE", "where to write (.json, .json.gz)", live="file"),
        ),
        _COMMON, title="%llm trace export perfetto FILE",
    ),
    Verb(
        "connect", "An engine behind a URL, to be used as one that is loaded.", "serving:connect",
        (Argument("URL", "where the server is: http://host:8000"),),
        (
            Option(("--as",), "the name to use it by", "NAME"),
            Option(("--kind",), "openai (vLLM, llama-server, ...) or ollama", "KIND", choices=("openai", "ollama")),
            Option(("--model",), "one of the server's models; without it the first", "MODEL"),
            Option(("--api-key-env",), "the environment variable that holds the key", "VAR"),
            Option(("--timeout",), "how long nothing may come (120)", "S", number),
            Option(("--seed",), "of requests that give none", "N", whole),
            Option(("--ctx",), "the context of the model, in tokens (Ollama)", "N", whole),
            Option(("--keep-alive",), "how long the model stays loaded: 10m (Ollama)", "TIME"),
            Option(("--pull",), "let the server fetch a model that it lacks (Ollama)"),
            Option(
                ("--trace",), "see its own steps and KV cache; where, if not at the URL: http://host:8100", "[ADDRESS]"
            ),
            Option(("--trace-token-env",), "the environment variable that holds the token of the trace", "VAR"),
            *_COMMON,
        ),
        title="%llm connect URL",
    ),
    Verb(
        "class", "Join a class: its engine answers, and the batch that all share is shown live.", "classes:join",
        (Argument("URL", "where the class is; in a JupyterHub that is known", required=False),),
        (
            Option(("--api-key-env",), "the environment variable that holds your token (LLMLAB_CLASS_KEY)", "VAR"),
            *_COMMON,
        ),
        title="%llm class [URL]",
    ),
    Verb(
        "serve", "An OpenAI-compatible endpoint of a loaded engine; `%llm serve stop` ends it.", "serving:serve",
        (_NAME,),
        (
            Option(("--port",), "where it listens; 0 = any free port", "P", whole),
            Option(("--host",), "which addresses reach it (127.0.0.1: this machine only)", "HOST"),
            Option(("--token-env",), "the environment variable that holds the token; without it one is made", "VAR"),
            Option(("--tls-cert",), "the certificate, for https", "FILE", live="file"),
            Option(("--tls-key",), "the key of the certificate", "FILE", live="file"),
            Option(("--max-open",), "answers that may run or wait at once; others get 429", "N", whole),
            Option(("--stop",), "end it"),
            *_COMMON,
        ),
        title="%llm serve [NAME]",
    ),
    Verb("lab list", "The labs there are.", "labs:list_labs", options=_COMMON, title="%llm lab list"),
    Verb(
        "lab start", "Copy the notebook of lab ID; work that is there is never overwritten.", "labs:start",
        (
            Argument("ID", "a lab (`%llm lab list`)", live="lab"),
            Argument("FOLDER", "where to (this folder)", required=False, live="file"),
        ),
        _COMMON, title="%llm lab start ID",
    ),
    Verb(
        "lab predict", "Write your guess for question Q down before you look.", "labs:predict",
        (_QUESTION, Argument("VALUE", "a number, numbers with commas between them, or text", convert=literal)),
        _COMMON, title="%llm lab predict Q VALUE",
    ),
    Verb(
        "lab check", "Check question Q, or all: points, reasons, two pictures.", "labs:check",
        (Argument("Q", "a question of the lab: Q1", required=False, live="question"),), _COMMON,
        title="%llm lab check [Q]",
    ),
    Verb(
        "lab hint", "The next hint to question Q; hints are counted.", "labs:hint",
        (_QUESTION,), _COMMON, title="%llm lab hint Q",
    ),
    Verb(
        "lab report", "Write predictions, results, hints and pictures into one page.", "labs:report",
        options=_COMMON, title="%llm lab report",
    ),
    Verb(
        "help", "This table, or the flags of one verb.", "status:help",
        (Argument("VERB", "a verb, or `prompt`", required=False, live="verb"),), _COMMON, title="%llm help [VERB]",
    ),
)  # fmt: skip
VERBS = {verb.name: verb for verb in _TABLE}
FIRST_WORDS = tuple(dict.fromkeys(name.split()[0] for name in VERBS))
