"""Postal addresses by their written form: a street with its number, what follows it, postcodes and post office boxes.

There is no register to check an address against: what has the form is masked and never counted.
"""

import re
from collections.abc import Iterator

from memtax.privacy.blocks import COMMON_WORDS, blocks
from memtax.privacy.folding import INVISIBLE
from memtax.privacy.growing import grown

_S = rf"(?:[ \t{INVISIBLE}]{{1,4}}|[ \t]{{0,4}}(?:\\n|\r?\n)[ \t>]{{0,16}})"
"""What stands between two words: some spaces, or a line break."""
_CAPITAL = r"(?![a-zß-ÿа-яё])[^\W\d_]"
_WORD = r"[^\W\d_][\w'\u2019.-]{0,40}"
_NAME = rf"{_CAPITAL}[\w'\u2019.-]{{0,40}}"
_NUMBER = (
    r"(?:(?:[Nn](?:\.?[or]|°)?[.:]{0,2}|д\.?|дом|№)[ ]?)?[0-9]{1,5}"
    r"(?:[кК][0-9]{1,2}|[ ]?[A-Za-z](?!\w)(?:[ ][0-9]{1,3}(?!\w))?)?"
    r"(?:[ ]?[-/+][ ]?[0-9]{1,5}(?:[A-Za-z](?!\w))?){0,2}(?!\w)"
)
_UK, _CANADA = r"[A-Z]{1,2}[0-9][A-Z0-9]?[ ]?[0-9][A-Z]{2}", r"[A-Z][0-9][A-Z][ -]?[0-9][A-Z][0-9]"
_POSTCODE = rf"(?:(?:[A-Z]{{1,3}}-)?[0-9]{{2,7}}(?:[ -][0-9]{{2,4}})?(?:[ ][A-Z]{{2}}\b)?|{_UK}|{_CANADA})"
_TOWN = rf"(?:St\.[ ]?)?{_CAPITAL}[\w'\u2019-]{{0,30}}"
_CITY = rf"{_TOWN}(?:[ /-](?:(?:am|an|der|di|de|la|le|sur|upon|on|of)[ -])?{_TOWN}){{0,3}}"
_COMMA = r"[,;\u060c\u3001]"
_NEXT = rf"(?:{_COMMA}{_S}?|{_S}(?:[-/|]{_S})?)"
_UNIT = (
    r"(?:(?:apartment|apt|appt|suite|ste|unit|flat|floor|fl|room|rm|building|bldg|wohnung|whg|piso|planta|puerta|esc|étage"
    r"|interno|int|scala|andar|apto|lgh|кв|block|tower|level|lot|daire|kat|bl|sc|ap|et|dto|bât|m)(?![^\W\d_])\.?[ ]?#?\w{1,5}\b"
    r"|#[ ]?\w{1,5}\b"
    r"|[0-9]{1,2}(?:st|nd|rd|th|[o°a])?\.?[ ](?:floor|piso|andar|étage|etage|stock|og|sal|tv|th|mf|[A-Z]\b)\.?)"
)
_PLACE = rf"(?:{_POSTCODE}{_S}{_CITY}|{_CITY}{_NEXT}(?:[A-Z]{{2,3}}{_NEXT})?{_POSTCODE}(?!\w))"
_SURE_CODE = (
    r"(?:(?:[A-Z]{1,3}-)?(?:[0-9]{5,7}|(?!19|20)[1-9][0-9]{3}(?:-[0-9]{3})?|[0-9]{3}[ -][0-9]{2,4}|[0-9]{2}-[0-9]{3}"
    r"|[0-9]{5}-[0-9]{3,4})"
    rf"|{_UK}|{_CANADA})(?![\w-])"
)
"""A postcode that is no year."""
_DISTRICT = r"[ ][0-9]{1,2}(?!\w|[.,][0-9])"
_SURE_PLACE = rf"(?:{_SURE_CODE}{_S}{_CITY}|{_CITY}{_NEXT}(?:\({_NAME}\)[ ]?|[A-Z]{{2,3}}{_NEXT})?{_SURE_CODE})"
_TAIL = re.compile(
    rf"(?:{_S}(?:[NS]?[EW]|[NS])(?!\w)\.?)?(?:{_NEXT}(?i:{_UNIT})){{0,4}}"
    rf"(?:(?:{_NEXT}[\w.°'()-]{{1,20}}(?:[ ][\w.°'()-]{{1,20}}){{0,3}}?){{0,3}}?{_NEXT}{_SURE_PLACE}"
    rf"|{_NEXT}{_PLACE}|,{_S}?{_CITY}{_NEXT}{_PLACE}|(?:,{_S}?{_CITY}){{1,2}})?"
    rf"(?:[ ]\([A-Z]{{2,3}}\)|{_DISTRICT})?"
)
"""What belongs to an address after street and number: a flat, the place, its postcode."""
_LOWER_TAIL = re.compile(rf",{_S}?{_WORD}(?:{_NEXT}{_POSTCODE}(?!\w))?", re.IGNORECASE)
_PLACED = re.compile(rf"{_NEXT}{_PLACE}")
_REACH = 96
"""Characters before a street's last word in which its number is looked for."""

_AROUND = 128
"""Characters on both sides of a digit that an address with it may reach to."""
_DIGITS = re.compile("[0-9]+")

_CLEAR = "street|avenue|road|lane|boulevard|blvd|crescent|terrace|parkway|pkwy|highway|hwy|freeway|turnpike|sokak|caddesi|marg"
_CAPITALIZED = (
    "St|Ave?|Rd|Ln|Dr|Drive|Ct|Court|Pl|Place|Sq|Square|Way|Close|Gardens?|Grove|Hill|Rise|Row|Mews|Parade|Circle|Cir|Trail|Trl"
    "|Walk|Quay|Wharf|Alley|Broadway|Bypass|Commons?|Cres|Esplanade|Gate|Green|Heights|Loop|Park|Path|Pike|Plaza|Promenade"
    "|Ridge|View|Villas?|Vista|Wynd|Yard|Ter|Terr|Cad|Sok|Nagar"
)
"""Words that end a street's name of English only where they are capitalized."""
_LAST = re.compile(rf"\b(?:(?i:{_CLEAR})|{_CAPITALIZED}|{_CAPITALIZED.upper()})\b\.?")
_BEFORE_LAST = re.compile(
    rf"(?<![\w.])(?:{_UNIT}{_NEXT})?{_NUMBER}(?:,{_S}?|{_S})(?P<name>(?:{_WORD}{_S}|[0-9]{{1,3}}(?:st|nd|rd|th){_S}){{1,4}})\Z",
    re.IGNORECASE,
)
_COMMON = re.compile(rf"\b(?:{COMMON_WORDS})\b", re.IGNORECASE)

_FRENCH = re.compile(
    r"\b(?:rue|avenue|av|ave|boulevard|bd|bvd|place|pl|allées?|chemin|ch|impasse|quai|cours|route|rte|square|passage|faubourg|fbg"
    r"|đường|phố|ngõ|ruelle|sentier|esplanade|promenade|lotissement|résidence)\b\.?",
    re.IGNORECASE,
)
"""Words that begin a street's name of French, after the number."""
_BEFORE_FRENCH = re.compile(rf"(?<![\w.])[0-9]{{1,4}}(?:[ ]?(?:bis|ter|quater|[A-F])\b)?(?:,{_S}?|{_S})\Z", re.IGNORECASE)
_AFTER_FRENCH = re.compile(
    rf"{_S}(?:(?i:de|du|des|la|le|les|à){_S}){{0,3}}(?:[ldLD]['\u2019])?{_WORD}(?:{_S}(?:(?:de|du|des|la|le|les){_S}){{0,2}}{_NAME}){{0,4}}"
)
_ROMANCE = re.compile(
    r"(?<!\w)(?:rue|chemin|quai|boulevard|avenue|calle|c/|avenida|avda|avd|av|plaza|pza|paseo|pso|camino|carretera|carrera|rua|travessa|praça|largo|alameda|rodovia"
    r"|estrada|via|viale|v\.le|piazza|piazzale|corso|c\.so|vicolo|strada|carrer|ronda|ulica|ul|aleja|al|pl|os|náměstí|ulice|třída"
    r"|bulevardul|calea|șoseaua|splaiul|piața|trg|triq|unter den|jalan|jl|đường|ул|улица|вул|вулиця|пр|проспект|просп|пер"
    r"|переулок|бул|бульвар|\u0431-\u0440|наб|набережная|ш|туп|мкр|площадь|площа|пл|узвіз|провулок|οδός|λεωφόρος|λεωφ|شارع|طريق"
    r"|רחוב|שדרות|דרך|כיכר|סמטת|route|callejón|costanilla|bulevar|cerrada|priv|privada|calz|calzada|eje|pje|pasaje|bv|blvd"
    r"|calçada|rotunda|beco|escadinhas|rod|aleea|intrarea|șos)(?!\w)\.?",
    re.IGNORECASE,
)
"""Words that begin a street's name in languages in which the number comes last."""
_AFTER_ROMANCE = re.compile(
    rf"{_S}(?:(?i:de|del|do|da|dos|das|di|della|dei|degli|delle|du|des|la|las|los|le|les|el){_S}){{0,2}}[„\"«]?(?:[ldLD]['\u2019])?{_NAME}[“”\"»]?"
    rf"(?:{_S}(?:(?:de|del|do|da|dos|das|di|della|dei|du|des|la|las|los|le|les|el|y|e){_S}){{0,2}}{_NAME}){{0,5}}(?:,{_S}?|{_S})(?:(?i:д\.?|дом|número|num\.?|no:?){_S}?)?(?:{_NUMBER}|s/n(?!\w))"
)
_PREPOSITION = re.compile(
    rf"(?<!\w)(?:am|an de[rmn]|auf de[rmn]|im|in de[rmn]|zum|zur|hinter de[rmn]|[Aa]lte[rns]?|[Nn]eue[rns]?|[Gg]roße[rns]?"
    rf"|Am|An de[rmn]|Auf de[rmn]|Im|In de[rmn]|Zum|Zur|Hinter de[rmn]){_S}{_NAME}{_S}{_NUMBER}"
)
"""Streets of German that are taken only with the place after them: years and hours look the same."""
_STRONG = (
    "straße|strasse|str|gasse|platz|allee|chaussee|damm|ufer|weg|steig|ring|straat|laan|plein|gracht|kade|dijk|singel|steenweg"
    "|gatan|gata|gaten|gate|gade|vägen|veien|vegen|vej|vei|gränd|torget|torv|allé|katu|kuja|polku|ntie"
    "|vegur|stígur|út|útja|rakpart|sétány|mnt|пр-т|пр-кт|проспект|улица|переулок|бульвар|шоссе|набережная"
    "|caddesi|cad|sokak|soka\u011f\u0131|sok|bulvar\u0131|mahallesi|iela|gatvė|tänav|maantee|cesta|ulica|körút"
)
_WEAK = (
    "quai|pr|markt|tor|graben|hof|berg|wall|kai|promenade|winkel|grund|feld|park|pfad|zeile|stieg|dreef|pad|plan|tie|tér|utca"
)
_COMPOUND = re.compile(rf"(?:(?P<strong>{_STRONG})|{_WEAK})(?!\w)\.?(?:,{_S}?|{_S}){_NUMBER}", re.IGNORECASE)
"""The last part of a street's name that says what it is, with the number after it: German, Dutch, northern languages."""
_BEFORE_COMPOUND = re.compile(
    rf"(?:(?<!\w){_NAME}[ -](?:(?:de|den|der|ten|ter|van|von|zu|'t)[ ]){{0,2}}){{0,3}}(?<![^\W\d_])[^\W\d_]{{0,30}}-?\Z"
)

_BARE = re.compile(
    rf"(?<![\w.]){_NAME}(?:[ ]{_NAME}){{0,3}},?{_S}{_NUMBER}(?:{_NEXT}(?i:{_UNIT})){{0,4}}"
    rf"(?:{_COMMA}{_S}?|{_S}[-/|]{_S}|[ \t]{{0,4}}(?:\\n|\r?\n)[ \t>]{{0,16}}){_SURE_PLACE}(?:{_DISTRICT})?"
)
"""A street without a word that says so, by the number and place after it."""
_CODE = re.compile(rf"(?<![\w.-])(?:[0-9]{{5,6}}(?:-[0-9]{{3,4}})?|[0-9]{{3}}-[0-9]{{4}}|{_UK}|{_CANADA})(?![\w-]|[.,:/][0-9])")
_PIECE = rf"(?:{_NAME}|[0-9]{{1,5}}(?:[-/][0-9]{{1,5}}){{0,3}}[A-Za-z]{{0,2}}|\({_NAME}\))"
_PIECES = rf"{_PIECE}(?:[ ](?:(?:de|du|des|la|le|of|the|di|da|do)[ ])?{_PIECE}){{0,4}}"
_CHAIN = re.compile(rf"(?<![\w'.-])(?:{_PIECES}{_COMMA}{_S}?){{1,6}}(?P<last>{_PIECES},?{_S})?\Z")
"""Pieces of an address that end with a postcode, with commas between them."""
_AFTER_CODE = re.compile(rf"{_S}{_CITY}(?:{_DISTRICT})?")
_GRID = re.compile(
    r"(?<!\w)(?:carrera|calle|cra|cl|kr|cll|diagonal|dg|transversal|tv|avenida|ak|ac)\.?[ ]"
    r"[0-9]{1,3}[A-Z]?(?:[ ](?:sur|norte|bis))?"
    r"[ ]?(?:no\.?|#|n°)[ ]?"
    r"[0-9]{1,3}[A-Z]?(?:[ ]bis)?[ ]?-[ ]?[0-9]{1,3}(?!\w)",
    re.IGNORECASE,
)
"""Streets that are numbers themselves."""
_LATER = re.compile(
    rf"(?<!\w)(?:{_NAME}[ ]){{1,3}}(?:Street|Road|Avenue|Lane|Boulevard|Drive|Way),?{_S}"
    rf"(?:(?:No\.?|House|Building|Bldg|Block|Villa|Plot)\.?[ ]?[0-9]{{1,5}}|[0-9]{{1,3}})[A-Za-z]?(?!\w|[.,]?[0-9])"
)
"""Streets of English with the number after them."""
_BREAK = r"[ \t]{0,4}(?:\\n|\r?\n)[ \t>]{0,16}"
_PLACE_FIRST = re.compile(
    rf"(?<![\w.-])(?:[A-Z]{{1,3}}-)?(?:[0-9]{{5}}|(?!19|20)[1-9][0-9]{{3}}){_S}{_CITY}(?:{_COMMA}{_S}?|[ ][-/|][ ]|{_BREAK})"
    rf"{_NAME}(?:[ ](?:[a-zß-ÿа-яё]{{1,8}}(?!\w)\.?|{_NAME})){{0,3}},?[ ]{_NUMBER}"
)
"""Postcode and place before the street and its number."""
_NO_STREET = "or|as|about|only|than|over|line|page|pages|chapter|section|figure|fig|table|version|step|part|size|count|total|id"
_SMALL_WORD = rf"(?!(?:{COMMON_WORDS}|{_NO_STREET})(?!\w))[^\W\d_][\w'\u2019.-]{{0,30}}"
_SMALL_NAME = rf"{_SMALL_WORD}(?:[ ]{_SMALL_WORD}){{0,3}}"
_SMALL_CODE = (
    r"(?:(?:[a-z]{1,3}-)?(?:[0-9]{5,6}|[0-9]{3}[ ][0-9]{2,3}|[0-9]{2}-[0-9]{3}|[0-9]{4}-[0-9]{3}|[0-9]{5}-[0-9]{3,4}"
    r"|[0-9]{3}-[0-9]{4})|[a-z]{1,2}[0-9][a-z0-9]?[ ][0-9][a-z]{2}|[a-z][0-9][a-z][ ][0-9][a-z][0-9]"
    r"|[a-z][0-9]{2}[ ][a-z][0-9][a-z][0-9])(?![\w-]|[.,:/][0-9])"
)
_SHORT_CODE = r"(?<=[\s|/-])(?:[a-z]{1,2}-[0-9]{4}|(?!19|20)[1-9][0-9]{3}|[0-9]{3})"
"""Postcodes that are taken only with the place after them."""
_SMALL_BETWEEN = rf"(?:{_COMMA}[ ]?|[ ][-/|][ ]|{_BREAK})"
_SMALL_PIECE = r"[\w'\u2019./\u00ba\u00aa#-]{1,24}(?:[ ][\w'\u2019./\u00ba\u00aa#-]{1,24}){0,4}"
_SMALL_CHAIN = re.compile(
    rf"(?<![\w.-])(?=[^A-Z]{{20}})"
    rf"(?:{_SMALL_NAME},?[ ]{_NUMBER}(?:[ ][\w.#-]{{1,9}}){{0,3}}(?:{_SMALL_BETWEEN}{_SMALL_PIECE}){{0,4}}?"
    rf"|(?:(?:{_SMALL_WORD}[ ]?)?{_NUMBER}(?:/[a-z])?(?:{_SMALL_BETWEEN}|[ ])|(?={_SMALL_NAME},[ ]{_SMALL_NAME},))"
    rf"{_SMALL_NAME}(?:{_SMALL_BETWEEN}{_SMALL_PIECE}){{1,4}}?)"
    rf"(?:{_SMALL_BETWEEN}(?:{_SMALL_CODE}(?:[ ]{_SMALL_NAME})?|{_SHORT_CODE}[ ]{_SMALL_NAME})|[ ](?:[/-][ ])?{_SMALL_CODE})"
)
"""Addresses without a capital letter, by their number and postcode."""
_HAN = r"\u3005-\u3007\u30a1-\u30fa\u30fc\u4e00-\u9fff"
_EASTERN = re.compile(
    rf"(?=[{_HAN}]{{0,20}}[都道府県市区區郡町村省县縣镇鎮乡路街巷])[{_HAN}]{{2,24}}(?:(?<=[市区郡町村])[\u3041-\u3096{_HAN}]{{1,12}})?[0-9]{{1,5}}(?:-[0-9]|丁目|番|号|號|弄|巷)"
    rf"(?:[{_HAN}\- ]{{0,12}}[0-9]{{1,5}}){{0,5}}[丁目番地号號弄室楼樓层層階栋棟座单單元]{{0,3}}"
    r"|(?:[가-힣]{2,4}[ ])?(?:[가-힣]{1,10}(?:시|도|군|구|읍|면)[ ]?){1,4}[가-힣0-9]{1,12}(?:로|길|동|가|리)[ ]?"
    r"(?:[0-9]{1,4}번?길[ ])?[0-9]{1,5}(?:-[0-9]{1,4})?(?:번지)?(?:,?[ ]?[가-힣]{0,10}[ ]?[0-9]{1,4}(?:층|호|동)){0,3}"
)
"""Addresses of Japan, China and Korea: from the largest unit to the number."""

_PLACE_BEFORE = re.compile(rf"(?<![\w.-])(?:[A-Z]{{1,3}}-)?[0-9]{{4,6}}{_S}{_CITY}{_COMMA}?{_S}\Z")
"""Postcode and place before the street: Hungary."""
_LETTERED = re.compile(rf"(?<![\w-])(?:{_UK}|{_CANADA}|[1-9][0-9]{{3}}[ ]?[A-Z]{{2}}(?=,?{_S}[A-Z]))(?![\w-])")
"""Postcodes with letters, which little else looks like."""
_BOX = re.compile(
    r"\b(?:p\.?[ ]?o\.?[ ]?box|post office box|postfach|boîte postale|b\.?p\.?|apartado(?: de correos)?|casella postale"
    r"|caixa postal|postbus|postboks|gpo box)[ .:#]{1,3}[0-9](?:[ ]?[0-9]){0,8}",
    re.IGNORECASE,
)


def postal_addresses(folded: str) -> Iterator[tuple[int, int]]:
    """First character and the one after the last of everything with the form of a postal address.

    Args:
        folded: a text from `fold`.
    """
    for first, last in _regions(folded):
        region = folded[first:last]
        for start, end in grown(region, _in_region(region)):
            yield first + start, first + end


def _regions(folded: str) -> Iterator[tuple[int, int]]:
    """Parts of a text around its digits, apart from each other: every address has one."""
    start = end = 0
    for match in _DIGITS.finditer(folded):
        if match.start() - _AROUND > end:
            if end:
                yield start, end
            start = match.start() - _AROUND
        end = match.end() + _AROUND
    if end:
        yield max(0, start), end


def _in_region(folded: str) -> Iterator[tuple[int, int]]:
    for start, end in (*_english(folded), *_french(folded), *_romance(folded), *_germanic(folded)):
        street = folded[start:end]
        tail = (_LOWER_TAIL if street == street.lower() else _TAIL).match(folded, end)
        place = _PLACE_BEFORE.search(folded[max(0, start - 64) : start])
        yield start - (len(place[0]) if place else 0), tail.end() if tail else end
    yield from blocks(folded)
    for pattern in (_LETTERED, _BARE, _EASTERN, _PLACE_FIRST, _SMALL_CHAIN):
        yield from (match.span() for match in pattern.finditer(folded))
    for code in _CODE.finditer(folded):
        if before := _CHAIN.search(folded[max(0, code.start() - _REACH) : code.start()]):
            after = _AFTER_CODE.match(folded, code.end())
            yield code.start() - len(before[0]), after.end() if after and before["last"] is None else code.end()
    for pattern in (_BOX, _GRID, _LATER):
        for match in pattern.finditer(folded):
            tail = _TAIL.match(folded, match.end())
            yield match.start(), tail.end() if tail else match.end()


def _english(folded: str) -> Iterator[tuple[int, int]]:
    for last in _LAST.finditer(folded):
        first = max(0, last.start() - _REACH)
        before = _search(_BEFORE_LAST, folded[first : last.start()])
        if before is None:
            continue
        clear = last[0].lower().rstrip(".") in _CLEAR.split("|") and not _COMMON.search(before["name"])
        if clear or all(not word[0].islower() for word in before["name"].split()):
            yield first + before.start(), last.end()


def _french(folded: str) -> Iterator[tuple[int, int]]:
    for word in _FRENCH.finditer(folded):
        first = max(0, word.start() - 16)
        before = _search(_BEFORE_FRENCH, folded[first : word.start()])
        after = before and _AFTER_FRENCH.match(folded, word.end())
        if before and after:
            yield first + before.start(), after.end()


def _romance(folded: str) -> Iterator[tuple[int, int]]:
    for word in _ROMANCE.finditer(folded):
        if after := _AFTER_ROMANCE.match(folded, word.end()):
            yield word.start(), after.end()


def _germanic(folded: str) -> Iterator[tuple[int, int]]:
    for match in _PREPOSITION.finditer(folded):
        if _PLACED.match(folded, match.end()):
            yield match.span()
    for match in _COMPOUND.finditer(folded):
        first = max(0, match.start() - _REACH)
        before = _BEFORE_COMPOUND.search(folded[first : match.start()])
        if before is None or len(before[0]) < 2:
            continue
        if match["strong"] or _PLACED.match(folded, match.end()):
            yield first + before.start(), match.end()


def _search(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """What a pattern that needs a digit finds: most texts have none."""
    return pattern.search(text) if any(map(str.isdecimal, text)) else None


_OPEN_LAST = re.compile(rf"(?<![\w.]){_NUMBER},?{_S}(?:{_NAME}(?:{_S}{_NAME}){{0,3}}{_S}?)?\Z")
_OPEN_FIRST = re.compile(
    rf"\s*(?:{_WORD}{_S})?(?:{_NAME}{_S}){{0,3}}(?:(?i:{_CLEAR})|{_CAPITALIZED}|{_CAPITALIZED.upper()})\b\.?|\s*\w{{0,30}}(?:{_STRONG})\b\.?{_S}{_NUMBER}"
)


def cut_addresses(folded: str) -> Iterator[tuple[int, int]]:
    """What may be the rest of a postal address that an end of the text cuts.

    Args:
        folded: a text from `fold`.
    """
    if match := _OPEN_FIRST.match(folded):
        tail = _TAIL.match(folded, match.end())
        yield match.start(), tail.end() if tail else match.end()
    if match := _OPEN_LAST.search(folded, max(0, len(folded) - _REACH)):
        yield match.span()
