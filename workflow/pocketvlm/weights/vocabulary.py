"""Vocabularies for weights without meaning: as large as the real ones, and every answer printable.

Two kinds, as llama.cpp knows them: pieces of the LLaMA family's tokenizer (`llama`, SentencePiece) and
tokens with merges (`gpt2`, byte-pair encoding). Prompts are split into about as many tokens as by the real
ones, because the common words of English are known; what the model answers with are invented words, which
no prompt is split into.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache

# How the tokenizers of the LLaMA and GPT-2 families write a space.
SPACE = "\u2581"
BPE_SPACE = "\u0120"

SYLLABLES = [a + b for a in "bdfghjklmnprstvz" for b in "aeiou"]
PRINTABLE = [chr(code) for code in range(0x20, 0x7F)]
INVENTED_WORDS = len(SYLLABLES) ** 3

CONTROL_PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
PIECE_CHARACTERS = [SPACE if character == " " else character for character in PRINTABLE]

# GPT-2's and Phi-2's last token with a meaning of its own is followed by this many without (51200 - 50257).
BPE_END = "<|endoftext|>"
BPE_UNUSED = 943

# Common words of English, those of chat templates, and those of questions about a picture.
# Read as one string because seven hundred quoted words are not.
COMMON_WORDS = """
the of and to in a is that it was for on are with as his they be at one have this from or had by hot but
some what there we can out other were all your when up use word how said an each she which do their time if
will way about many then them would write like so these her long make thing see him two has look more day
could go come did my sound no most number who over know water than call first people may down side been now
find any new work part take get place made live where after back little only round man year came show every
good me give our under name very through just form much great think say help low line before turn cause same
mean differ move right boy old too does tell sentence set three want air well also play small end put home
read hand large spell add even land here must big high such follow act why ask men change went light kind
off need house picture try us again animal point mother world near build self earth father head stand own
page should country found answer school grow study still learn plant cover food sun four thought let keep
eye never last door between city tree cross since hard start might story saw far sea draw left late run
while press close night real life few stop open seem together next white children begin got walk example
ease paper often always music those both mark book letter until mile river car feet care second group carry
took rain eat room friend began idea fish mountain north once base hear horse cut sure watch color colors
colour colours face wood main enough plain girl usual young ready above ever red list though feel feels talk
bird soon body dog family direct pose leave song measure state product black short numeral class wind
question happen complete ship area half rock order fire south problem piece told knew pass farm top whole
king size heard best hour better true during hundred am remember step early hold west ground interest reach
fast five sing listen six table travel less morning ten simple several vowel toward war lay against pattern
slow center love person money serve appear road map science rule govern pull cold notice voice fall power
town fine certain fly unit lead cry dark machine note wait plan figure star box noun field rest correct able
pound done beauty drive stood contain front teach week final gave green oh quick develop sleep warm free
minute strong special mind behind clear tail produce fact street inch lot nothing course stay wheel full
force blue object decide surface deep moon island foot yet busy test record boat common gold possible plane
age dry wonder laugh thousand ago ran check game shape yes cool miss brought heat snow bed bring sit perhaps
fill east weight language among photo photograph image describe closely below cup saucer spoon coffee makes
comes scene background foreground detail details bread burger plate bowl glass knife fork visible shown
instruction response user assistant chat curious human artificial intelligence gives helpful detailed polite
answers questions
""".split()  # noqa: SIM905


def beginnings(words: Iterable[str], space: str = SPACE) -> list[str]:
    """Return every beginning of every word, once, after a space.

    A tokenizer joins two neighbours at a time: it reaches a word by way of every beginning of it.
    """
    return list(dict.fromkeys(space + word[:end] for word in words for end in range(1, len(word) + 1)))


def invented_words(count: int, space: str = SPACE, avoid: Collection[str] = ()) -> list[str]:
    """Return that many invented words of three syllables each, after a space, without those to avoid.

    They cannot come out of a prompt, because their beginnings are no pieces; they are what a model answers
    with. There are INVENTED_WORDS, less those to avoid.
    """
    base = len(SYLLABLES)
    words: list[str] = []
    index = 0
    while len(words) < count:
        # A stride without a common divisor visits each of the words once, in no alphabetical order.
        number = index * 316433 % base**3
        word = space + "".join(SYLLABLES[number // base**place % base] for place in range(3))
        if word not in avoid:
            words.append(word)
        index += 1
    return words


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's tokens.

    Attributes:
        tokens: in order of their numbers.
        kinds: of each, a value of gguf.TokenType.
        silent: ranges [from, to) of tokens that are never to be the answer.
        merges: of byte-pair encoding, best first; empty for pieces.
    """

    tokens: list[str]
    kinds: list[int]
    silent: tuple[tuple[int, int], ...]
    merges: list[str]


_NORMAL, _UNKNOWN, _CONTROL, _UNUSED, _BYTE = 1, 2, 3, 5, 6


def pieces(size: int) -> Vocabulary:
    """Return `size` pieces for llama.cpp's tokenizer `llama`, in order of their scores, best first.

    Raises:
        ValueError: it is too small for what must be in it, or larger than there are invented words.
    """
    check_size(size, byte_pairs=False)
    fixed = _fixed_pieces()
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256]
    return Vocabulary(
        tokens=[*fixed, *invented_words(size - len(fixed), avoid=set(fixed))],
        kinds=[*kinds, *[_NORMAL] * (size - len(kinds))],
        # And the space alone, which is the first of the characters.
        silent=((0, len(CONTROL_PIECES) + 1),),
        merges=[],
    )


def byte_pairs(size: int) -> Vocabulary:
    """Return `size` tokens and their merges for llama.cpp's tokenizer `gpt2`, laid out as Phi-2's.

    First the 256 bytes, then what merges make of them, then invented words, the end of text, and tokens
    that are not used. Answers use no byte that is not a printable character of ASCII, nor a space alone.

    Raises:
        ValueError: it is too small for what must be in it, or larger than there are invented words.
    """
    check_size(size, byte_pairs=True)
    fixed = _fixed_byte_pairs()
    end = size - BPE_UNUSED - 1
    tokens = [*fixed, *invented_words(end - len(fixed), BPE_SPACE, set(fixed)), BPE_END]
    unused = [f"[PAD{number}]" for number in range(len(tokens), size)]
    return Vocabulary(
        tokens=[*tokens, *unused],
        kinds=[*[_NORMAL] * end, _CONTROL, *[_UNUSED] * BPE_UNUSED],
        silent=((len(PRINTABLE) - 1, 256), (end, size)),
        # Beginnings after a space come first, so that no other pair of a word is joined before them.
        merges=[f"{word[:-1]} {word[-1]}" for word in _known_words(BPE_SPACE) if len(word) > 1],
    )


def check_size(size: int, *, byte_pairs: bool) -> None:
    """Raise ValueError when no vocabulary of that kind has that size."""
    unused = BPE_UNUSED + 1 if byte_pairs else 0
    least = len(_fixed_byte_pairs() if byte_pairs else _fixed_pieces()) + 1 + unused
    if not least <= size <= INVENTED_WORDS:
        raise ValueError(f"it must lie between {least} and {INVENTED_WORDS}")


@cache
def _fixed_pieces() -> list[str]:
    return [*CONTROL_PIECES, *PIECE_CHARACTERS, *_known_words(SPACE)]


@cache
def _fixed_byte_pairs() -> list[str]:
    return list(dict.fromkeys([*_byte_characters(), *_known_words(BPE_SPACE)]))


@cache
def _known_words(space: str) -> list[str]:
    """Return beginnings of the common words: after a space, then those with a capital after none.

    In this order the beginning that includes the space is joined first; a word without one is reached from
    its capital, which stands nowhere else in it.
    """
    capitals = [word.capitalize() for word in COMMON_WORDS]
    return [
        *beginnings([*COMMON_WORDS, *capitals], space),
        *(piece for piece in beginnings(capitals, "") if len(piece) > 1),
    ]


def _byte_characters() -> list[str]:
    """Return how GPT-2 writes the 256 bytes, in the order of its vocabulary: printable ones, then the
    others."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(256 + index) for index in range(len(others)))]
