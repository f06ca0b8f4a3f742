"""The words of both tasks. Names, colors and things are single tokens of GPT-2's and of Gemma 3's vocabulary."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


THINGS = _words(
    "pencil notebook pen cup plate jug mug puzzle textbook leash necklace bracelet bottle ball envelope lighter bowl"
)
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black")
SURFACES = ("table", "desk", "floor")
OPENINGS = ("there is", "you see", "I see")

NAMES = _words(
    "Adam Alex Alice Amy Andrew Anna Anthony Ben Brian Carl Charles Chris Daniel David Diana Edward Elizabeth "
    "Emily Emma Eric Frank George Grace Henry Jack Jacob James Jane Jason Jennifer Jessica John Joseph Julia Kate "
    "Kevin Kim Laura Leon Lisa Lucy Maria Mark Martin Mary Matthew Michael Nick Oliver Patrick Paul Peter Rachel "
    "Richard Robert Rose Sam Sarah Simon Thomas"
)
PLACES = _words(
    "store school park office house hospital garden station restaurant library museum market beach church theater "
    "farm airport bank hotel factory"
)
GIFTS = _words(
    "book drink ring key ball flower letter phone map bag hat coat clock camera ticket card box lamp guitar watch"
)

# The two who are there in their order, then the one who gives; `{giver}` is one of the two and the other is asked for.
SENTENCES = (
    "When {first} and {second} went to the {place}, {giver} gave a {gift} to",
    "After {first} and {second} arrived at the {place}, {giver} handed a {gift} to",
    "While {first} and {second} were at the {place}, {giver} passed a {gift} to",
    "Then, {first} and {second} walked to the {place}. There, {giver} offered a {gift} to",
    "Before {first} and {second} left the {place}, {giver} sold a {gift} to",
    "Once {first} and {second} had found the {place}, {giver} brought a {gift} to",
    "Yesterday {first} and {second} met near the {place}, and {giver} showed a {gift} to",
    "As {first} and {second} waited outside the {place}, {giver} lent a {gift} to",
    "Last week {first} and {second} visited the {place}. Later, {giver} sent a {gift} to",
    "In the morning {first} and {second} drove to the {place}, where {giver} gave a {gift} to",
    "Friends of ours, {first} and {second} worked at the {place}, and {giver} promised a {gift} to",
    "The day that {first} and {second} opened the {place}, {giver} presented a {gift} to",
    "Since {first} and {second} both liked the {place}, {giver} bought there a {gift} and gave it to",
    "At noon {first} and {second} had lunch at the {place}. Afterwards, {giver} returned a {gift} to",
    "Because {first} and {second} were late at the {place}, {giver} threw a {gift} to",
)
