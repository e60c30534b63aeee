"""The tones and number words of the generated data set."""

from __future__ import annotations

from collections.abc import Mapping

# ITU-T Q.23: the low and the high frequency of each key, Hz.
TONES: Mapping[int, tuple[float, float]] = {
    0: (941.0, 1336.0),
    1: (697.0, 1209.0),
    2: (697.0, 1336.0),
    3: (697.0, 1477.0),
    4: (770.0, 1209.0),
    5: (770.0, 1336.0),
    6: (770.0, 1477.0),
    7: (852.0, 1209.0),
    8: (852.0, 1336.0),
    9: (852.0, 1477.0),
}

# ISO 639-3 code -> the words for 0 to 9, as one counts. (The look-alikes are meant: dotless i, U+2019 in Ukrainian.)
WORDS: Mapping[str, tuple[str, ...]] = {
    language: tuple(words.split())
    for language, words in {
        "amh": "ዜሮ አንድ ሁለት ሦስት አራት አምስት ስድስት ሰባት ስምንት ዘጠኝ",
        "ara": "صفر واحد اثنان ثلاثة أربعة خمسة ستة سبعة ثمانية تسعة",
        "ben": "শূন্য এক দুই তিন চার পাঁচ ছয় সাত আট নয়",
        "bul": "нула едно две три четири пет шест седем осем девет",
        "ces": "nula jedna dva tři čtyři pět šest sedm osm devět",
        "cmn": "零 一 二 三 四 五 六 七 八 九",
        "dan": "nul en to tre fire fem seks syv otte ni",
        "deu": "null eins zwei drei vier fünf sechs sieben acht neun",
        "ell": "μηδέν ένα δύο τρία τέσσερα πέντε έξι επτά οκτώ εννέα",
        "eng": "zero one two three four five six seven eight nine",
        "fas": "صفر یک دو سه چهار پنج شش هفت هشت نه",
        "fin": "nolla yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän",
        "fra": "zéro un deux trois quatre cinq six sept huit neuf",
        "heb": "אפס אחת שתיים שלוש ארבע חמש שש שבע שמונה תשע",
        "hin": "शून्य एक दो तीन चार पाँच छह सात आठ नौ",
        "hun": "nulla egy kettő három négy öt hat hét nyolc kilenc",
        "hye": "զրո մեկ երկու երեք չորս հինգ վեց յոթ ութ ինը",
        "ind": "nol satu dua tiga empat lima enam tujuh delapan sembilan",
        "ita": "zero uno due tre quattro cinque sei sette otto nove",
        "jpn": "ゼロ いち に さん よん ご ろく なな はち きゅう",
        "kat": "ნული ერთი ორი სამი ოთხი ხუთი ექვსი შვიდი რვა ცხრა",
        "kor": "영 하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉",
        "nld": "nul een twee drie vier vijf zes zeven acht negen",
        "pol": "zero jeden dwa trzy cztery pięć sześć siedem osiem dziewięć",
        "por": "zero um dois três quatro cinco seis sete oito nove",
        "ron": "zero unu doi trei patru cinci șase șapte opt nouă",
        "rus": "ноль один два три четыре пять шесть семь восемь девять",
        "spa": "cero uno dos tres cuatro cinco seis siete ocho nueve",
        "swa": "sifuri moja mbili tatu nne tano sita saba nane tisa",
        "swe": "noll ett två tre fyra fem sex sju åtta nio",
        "tam": "சுழியம் ஒன்று இரண்டு மூன்று நான்கு ஐந்து ஆறு ஏழு எட்டு ஒன்பது",
        "tha": "ศูนย์ หนึ่ง สอง สาม สี่ ห้า หก เจ็ด แปด เก้า",
        "tur": "sıfır bir iki üç dört beş altı yedi sekiz dokuz",
        "ukr": "нуль один два три чотири п’ять шість сім вісім дев’ять",
        "vie": "không một hai ba bốn năm sáu bảy tám chín",
    }.items()
}
