"""A LangGraph agent with tools whose conversation is kept in SQLite: the next run goes on with it.

    python examples/langgraph_sqlite.py "My name is Ada. What is 17 times 23?"
    python examples/langgraph_sqlite.py "What is my name?"
    python examples/langgraph_sqlite.py --history

The answer goes to stdout, the calls of tools to stderr. `--thread` keeps conversations apart. A run that was killed after
a step, say between the call of a tool and the answer, is finished first by the next run. The default model, with its 135
million parameters, makes valid calls but seldom wise ones: name a larger model for answers that make sense.
Needs langchain and langgraph-checkpoint-sqlite.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, ModelResponse, wrap_model_call
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver

from langchain_localllama import ChatLocalLlama
from localllama import LocalLlamaError

SYSTEM = "You are a helpful assistant. Answer in one short sentence."


@tool
def multiply(a: float, b: float) -> float:
    """Multiply two numbers."""
    return a * b


@tool
def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


def answer_after(rounds: int) -> Any:
    """Takes the tools away after so many rounds of calls: a small model would go on calling them."""

    @wrap_model_call
    def limit(request: ModelRequest, ask: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
        last_question = max(n for n, message in enumerate(request.messages) if isinstance(message, HumanMessage))
        n_rounds = sum(isinstance(message, AIMessage) for message in request.messages[last_question:])
        return ask(request.override(tools=[]) if n_rounds >= rounds else request)

    return limit


def tell(message: AnyMessage) -> None:
    """Print one message: what was said to stdout, what was done to stderr."""
    if isinstance(message, AIMessage):
        for call in message.tool_calls:
            print(f"  call: {call['name']}({call['args']})", file=sys.stderr)
    if isinstance(message, ToolMessage):
        print(f"  {message.name}: {message.text}", file=sys.stderr)
    elif message.text:
        print(f"> {message.text}" if isinstance(message, HumanMessage) else message.text, flush=True)


def run(agent: Any, state: dict[str, Any] | None, config: RunnableConfig) -> None:
    """Run the agent to its end, and tell each step; with no state it goes on where it was."""
    for step in agent.stream(state, config, stream_mode="updates", durability="sync"):
        for update in step.values():
            for message in (update or {}).get("messages", ()):
                tell(message)


def main(arguments: list[str] | None = None) -> int:
    """Answer one question, or show the conversation; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", help="what to say to the agent")
    parser.add_argument("--history", action="store_true", help="show the conversation and end; starts no model")
    parser.add_argument("--rounds", type=int, default=2, help="most rounds of calls (default: %(default)s)")
    parser.add_argument("--thread", default="main", help="name of the conversation (default: %(default)s)")
    parser.add_argument("--database", type=Path, default="conversations.sqlite", help="default: %(default)s")
    parser.add_argument("--model", default="smollm2-135m", help="path or other model reference (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.question is None and not options.history:
        parser.error("a question is needed, or --history")
    config: RunnableConfig = {"configurable": {"thread_id": options.thread}}
    try:
        with (
            SqliteSaver.from_conn_string(str(options.database)) as conversations,
            ChatLocalLlama(model=options.model, temperature=0, max_tokens=200) as llm,
        ):
            agent: Any = create_agent(
                llm,
                [multiply, add],
                system_prompt=SYSTEM,
                middleware=[answer_after(options.rounds)],
                checkpointer=conversations,
            )
            before = agent.get_state(config)
            if options.history:
                for message in before.values.get("messages", ()):
                    tell(message)
                return 0
            if before.next:
                run(agent, None, config)
            run(agent, {"messages": [HumanMessage(options.question)]}, config)
    except LocalLlamaError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
