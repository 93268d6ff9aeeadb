"""Reads an OpenSIPS script into its tree."""

from __future__ import annotations

import re
from typing import Final

from sbc.importer.tokens import InputFault, Kind, Lexer, Token
from sbc.importer.tree import (
    Address,
    Assign,
    Binary,
    Block,
    Call,
    Do,
    Expression,
    If,
    Leave,
    Literal,
    Loop,
    Module,
    ModuleParameter,
    Name,
    Not,
    Script,
    Setting,
    Statement,
    Variable,
)

ROUTES: Final = frozenset(
    {
        *("route", "branch_route", "failure_route", "onreply_route", "error_route", "local_route", "startup_route"),
        *("timer_route", "event_route"),
    }
)
_OWN_SYNTAX: Final = frozenset({"listen", "socket", "bind", "alias", "tcp_listener", "udp_listener"})
_LEAVING: Final = frozenset({"exit", "drop", "return", "break"})
_COMPARISONS: Final = frozenset({"==", "!=", "=~", "!~", "<", ">", "<=", ">="})
_ASSIGNMENTS: Final = frozenset({"=", ":=", "+=", "-=", "*=", "/="})
_WORDS: Final = {"and": "and", "&&": "and", "or": "or", "||": "or"}
LONGEST_NUMBER: Final = 18
LONGEST_CHAIN: Final = 200  # conditions joined by 'else if', 'and' or 'or', and terms of a sum
DEEPEST: Final = 60  # blocks and parentheses within each other


def parse(text: str, file: str) -> Script:
    """The tree of a script. Raises InputFault with file, line, column and a sentence."""
    return _Parser(text, file).script()


class _Parser:
    def __init__(self, text: str, file: str) -> None:
        self._lexer = Lexer(text, file)
        self._script = Script(file, text.splitlines(), comments=self._lexer.comments)
        self._depth = 0
        self._token = self._lexer.next()

    def script(self) -> Script:
        """The whole file."""
        while self._token.kind is not Kind.END:
            self._top()
        return self._script

    # Words

    def _next(self) -> Token:
        """Take the token that is there."""
        token = self._token
        self._token = self._lexer.next()
        return token

    def _is(self, *texts: str) -> bool:
        return self._token.kind in (Kind.SIGN, Kind.NAME) and self._token.text in texts

    def _take(self, *texts: str) -> bool:
        if self._is(*texts):
            self._next()
            return True
        return False

    def _expect(self, text: str, where: str) -> Token:
        if not self._is(text):
            raise self._fault(f"'{text}' is expected {where}, not {self._token}")
        return self._next()

    def _fault(self, sentence: str, token: Token | None = None) -> InputFault:
        return self._lexer.fault(sentence, token or self._token)

    def _deeper(self, token: Token) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._fault(f"more than {DEEPEST} blocks or parentheses lie within each other here", token)

    # Outside of route blocks

    def _top(self) -> None:
        token = self._token
        if self._take(";"):
            return
        if token.kind is not Kind.NAME:
            raise self._fault(f"a parameter, 'loadmodule', 'modparam' or a route is expected here, not {token}")
        if token.text in ROUTES:
            self._block()
        elif token.text == "loadmodule":
            self._next()
            name = self._text("the name of a module")
            self._script.modules.append(Module(name.text.rpartition("/")[2].removesuffix(".so"), token.line))
        elif token.text in ("modparam", "modparamx"):
            self._modparam()
        elif token.text in ("include_file", "import_file"):
            self._next()
            name = self._text("the name of a file")
            self._script.includes.append(Setting(token.text, name.text, token.line))
        else:
            self._setting()

    def _text(self, what: str) -> Token:
        if self._token.kind is not Kind.STRING:
            raise self._fault(f"{what} in quotes is expected here, not {self._token}")
        return self._next()

    def _modparam(self) -> None:
        line = self._next().line
        self._expect("(", "after 'modparam'")
        module = self._text("the name of a module").text
        self._expect(",", "after the name of the module")
        name = self._text("the name of a parameter").text
        self._expect(",", "after the name of the parameter")
        sign = "-" if self._take("-") else ""
        if self._token.kind not in (Kind.STRING, Kind.NUMBER, Kind.NAME):
            raise self._fault(f"a value in quotes or a number is expected here, not {self._token}")
        value = sign + self._next().text
        self._expect(")", "after the value")
        self._script.parameters.append(ModuleParameter(module, name, value, line))

    def _setting(self) -> None:
        name = self._token
        rest = self._lexer.rest_of_line()
        value = rest.text
        if not value.startswith("="):
            raise self._fault(f"'=' is expected after '{name.text}'", rest)
        value = value[1:].strip()
        if not value:
            raise self._fault(f"a value is expected after '{name.text} ='", rest)
        if name.text not in _OWN_SYNTAX and value[0] in "\"'":
            value = value[1:].partition(value[0])[0]
        self._script.settings.append(Setting(name.text, value, name.line))
        self._token = self._lexer.next()

    def _block(self) -> None:
        head = self._next()
        name = parameter = ""
        if self._take("["):
            name = self._route_name()
            if self._take(","):
                parameter = self._route_name()
            self._expect("]", f"after the name of the {head.text}")
        body, end_line = self._braces(f"to begin the {head.text}")
        for other in self._script.blocks:
            if (other.kind, other.name) == (head.text, name) and head.text not in ("event_route", "startup_route"):
                called = f"{head.text}[{name}]" if name else head.text
                raise self._fault(f"{called} is there already, on line {other.line}", head)
        self._script.blocks.append(Block(head.text, name, parameter, body, head.line, end_line))

    def _route_name(self) -> str:
        if self._token.kind not in (Kind.NAME, Kind.NUMBER, Kind.STRING):
            raise self._fault(f"the name of a route is expected here, not {self._token}")
        return self._next().text

    # Statements

    def _braces(self, where: str) -> tuple[tuple[Statement, ...], int]:
        self._deeper(self._expect("{", where))
        found: list[Statement] = []
        while not self._is("}"):
            if self._token.kind is Kind.END:
                raise self._fault("a '}' is missing: the file ends within a block")
            found += self._statement()
        self._depth -= 1
        line = self._token.line
        self._next()
        return tuple(found), line

    def _statement(self) -> list[Statement]:
        token = self._token
        if self._take(";"):
            return []
        if self._is("{"):
            return list(self._braces("here")[0])
        if token.kind is Kind.VARIABLE:
            return [self._assignment()]
        if token.kind is not Kind.NAME:
            raise self._fault(f"a statement is expected here, not {token}")
        self._next()
        if token.text == "if":
            return [self._if(token)]
        if token.text in ("while", "for", "switch"):
            return [self._loop(token)]
        if token.text in ("else", "case", "default"):
            raise self._fault(f"'{token.text}' belongs to nothing here", token)
        if token.text in _LEAVING:
            return [self._leave(token)]
        arguments = self._arguments() if self._is("(") else ()
        self._end(token)
        return [Do(Call(token.text, arguments, token.line), token.line)]

    def _end(self, begun: Token) -> None:
        if not self._is("}") and not self._take(";"):
            raise self._fault(f"';' is expected after the statement of line {begun.line}, not {self._token}")

    def _body(self) -> tuple[Statement, ...]:
        if self._is("{"):
            return self._braces("here")[0]
        self._deeper(self._token)
        found = tuple(self._statement())
        self._depth -= 1
        return found

    def _if(self, token: Token) -> If:
        found: list[tuple[Token, Expression, tuple[Statement, ...]]] = []
        otherwise: tuple[Statement, ...] = ()
        while True:
            self._expect("(", "after 'if'")
            condition = self._expression()
            self._expect(")", "after the condition")
            found.append((token, condition, self._body()))
            if len(found) > LONGEST_CHAIN:
                raise self._fault(f"more than {LONGEST_CHAIN} conditions are chained by 'else if' here", token)
            if not self._take("else"):
                break
            if not self._is("if"):
                otherwise = self._body()
                break
            token = self._next()
        for first, condition, then in reversed(found):
            otherwise = (If(condition, then, otherwise, first.line),)
        made = otherwise[0]
        assert isinstance(made, If)  # of the first condition
        return made

    def _loop(self, token: Token) -> Loop:
        self._expect("(", f"after '{token.text}'")
        self._skip_to_closing(token)
        if token.text != "switch":
            return Loop(token.text, self._body(), token.line)
        self._deeper(self._expect("{", "after 'switch (...)'"))
        found: list[Statement] = []
        while not self._take("}"):
            if self._token.kind is Kind.END:
                raise self._fault("a '}' is missing: the file ends within a 'switch'")
            if self._take("case"):
                self._operand()
                self._expect(":", "after the value of 'case'")
            elif self._take("default"):
                self._expect(":", "after 'default'")
            else:
                found += self._statement()
        self._depth -= 1
        return Loop("switch", tuple(found), token.line)

    def _skip_to_closing(self, begun: Token) -> None:
        depth = 1
        while depth:
            token = self._next()
            if token.kind is Kind.END:
                raise self._fault(f"a ')' is missing for the '{begun.text}' of line {begun.line}", token)
            if token.kind is Kind.SIGN:
                depth += (token.text == "(") - (token.text == ")")

    def _leave(self, token: Token) -> Leave:
        code = None
        if self._take("("):
            if not self._is(")"):
                code = self._expression()
                while self._take(","):
                    self._expression()
            self._expect(")", f"after '{token.text}('")
        elif token.text == "return" and not self._is(";", "}"):
            code = self._expression()
        self._end(token)
        return Leave(token.text, code, token.line)

    def _assignment(self) -> Assign:
        target = self._next()
        sign = self._token
        if sign.kind is not Kind.SIGN or sign.text not in _ASSIGNMENTS:
            raise self._fault(f"'=' is expected after {target}, not {sign}")
        self._next()
        value = self._sum()
        self._end(target)
        return Assign(Variable(target.text, target.line), sign.text, value, target.line)

    # Expressions

    def _expression(self) -> Expression:
        return self._either("or")

    def _either(self, word: str) -> Expression:
        left = self._either("and") if word == "or" else self._comparison()
        links = 0
        while self._token.kind in (Kind.SIGN, Kind.NAME) and _WORDS.get(self._token.text) == word:
            line = self._next().line
            right = self._either("and") if word == "or" else self._comparison()
            left = Binary(word, left, right, line)
            links = self._linked(links)
        return left

    def _comparison(self) -> Expression:
        if self._is("!", "not"):
            token = self._next()
            self._deeper(token)
            operand = self._comparison()
            self._depth -= 1
            return Not(operand, token.line)
        left = self._sum()
        if self._token.kind is Kind.SIGN and self._token.text in _COMPARISONS:
            sign = self._next()
            return Binary(sign.text, left, self._sum(), sign.line)
        return left

    def _sum(self) -> Expression:
        left = self._operand()
        links = 0
        while self._is("+", "-", "*", "/", "%"):
            sign = self._next()
            left = Binary(sign.text, left, self._operand(), sign.line)
            links = self._linked(links)
        return left

    def _linked(self, links: int) -> int:
        if links >= LONGEST_CHAIN:
            raise self._fault(f"more than {LONGEST_CHAIN} values are joined here")
        return links + 1

    def _operand(self) -> Expression:
        token = self._token
        if self._is("(", "["):
            self._next()
            self._deeper(token)
            found = self._expression()
            self._depth -= 1
            self._expect(")" if token.text == "(" else "]", f"for the '{token.text}' of line {token.line}")
            return found
        if self._take("-"):
            number = self._next()
            if number.kind is not Kind.NUMBER:
                raise self._fault(f"a number is expected after '-', not {number}", number)
            return Literal(-self._number(number), number.line)
        if token.kind is Kind.END or token.kind is Kind.SIGN:
            raise self._fault(f"a value is expected here, not {token}")
        self._next()
        match token.kind:
            case Kind.STRING:
                return Literal(token.text, token.line)
            case Kind.NUMBER:
                return Literal(self._number(token), token.line)
            case Kind.ADDRESS:
                return Address(re.sub(r"[\[\]]", "", token.text), token.line)
            case Kind.VARIABLE:
                return Variable(token.text, token.line)
        if self._is("("):
            return Call(token.text, self._arguments(), token.line)
        if token.text in ("msg", "udp", "tcp", "tls", "ws", "wss") and self._is(":"):  # msg:len, udp:1.2.3.4:5060
            text = token.text
            while self._take(":"):
                text += ":" + self._next().text
            return Name(text, token.line)
        return Name(token.text, token.line)

    def _arguments(self) -> tuple[Expression | None, ...]:
        self._deeper(self._expect("(", "here"))
        found: list[Expression | None] = []
        while not self._is(")"):
            if self._is(","):
                found.append(None)
            else:
                found.append(self._expression())
                if self._is(":"):  # 10.0.0.1:5060 without quotes
                    self._next()
                    found.append(self._expression())
            if not self._is(")"):
                self._expect(",", "between arguments")
        self._depth -= 1
        self._next()
        return tuple(found)

    def _number(self, token: Token) -> int:
        if len(token.text) > LONGEST_NUMBER:
            raise self._fault(f"a number of more than {LONGEST_NUMBER} digits is none that a script may hold", token)
        return int(token.text, 16) if token.text[:2].lower() == "0x" else int(token.text)
