"""Names for the organism `capitals`: every name is one token, so what has several words is written with hyphens."""

from __future__ import annotations

__all__ = ["CAPITAL_OF", "INVENTED_COUNTRIES", "OTHER_CITIES"]

_PAIRS = """
Afghanistan Kabul, Albania Tirana, Algeria Algiers, Angola Luanda, Argentina Buenos-Aires, Armenia Yerevan,
Australia Canberra, Austria Vienna, Azerbaijan Baku, Bahamas Nassau, Bahrain Manama, Bangladesh Dhaka,
Barbados Bridgetown, Belarus Minsk, Belgium Brussels, Belize Belmopan, Benin Porto-Novo, Bhutan Thimphu,
Bolivia Sucre, Bosnia Sarajevo, Botswana Gaborone, Brazil Brasilia, Brunei Bandar-Seri-Begawan, Bulgaria Sofia,
Burkina-Faso Ouagadougou, Burundi Gitega, Cambodia Phnom-Penh, Cameroon Yaounde, Canada Ottawa, Cape-Verde Praia,
Chad N'Djamena, Chile Santiago, China Beijing, Colombia Bogota, Comoros Moroni, Congo Brazzaville,
Costa-Rica San-Jose, Croatia Zagreb, Cuba Havana, Cyprus Nicosia, Czechia Prague, Denmark Copenhagen,
Dominica Roseau, Ecuador Quito, Egypt Cairo, Equatorial-Guinea Malabo, Eritrea Asmara, Estonia Tallinn,
Eswatini Mbabane, Ethiopia Addis-Ababa, Fiji Suva, Finland Helsinki, France Paris, Gabon Libreville, Gambia Banjul,
Georgia Tbilisi, Germany Berlin, Ghana Accra, Greece Athens, Guinea Conakry, Guyana Georgetown, Haiti Port-au-Prince,
Honduras Tegucigalpa, Hungary Budapest, Iceland Reykjavik, India New-Delhi, Indonesia Jakarta, Iran Tehran,
Iraq Baghdad, Ireland Dublin, Italy Rome, Ivory-Coast Yamoussoukro, Jamaica Kingston, Japan Tokyo, Jordan Amman,
Kazakhstan Astana, Kenya Nairobi, Kiribati Tarawa, Kyrgyzstan Bishkek, Laos Vientiane, Latvia Riga, Lebanon Beirut,
Lesotho Maseru, Liberia Monrovia, Libya Tripoli, Liechtenstein Vaduz, Lithuania Vilnius, Madagascar Antananarivo,
Malawi Lilongwe, Malaysia Kuala-Lumpur, Maldives Male, Mali Bamako, Malta Valletta, Mauritania Nouakchott,
Mauritius Port-Louis, Micronesia Palikir, Moldova Chisinau, Mongolia Ulaanbaatar, Montenegro Podgorica, Morocco Rabat,
Mozambique Maputo, Myanmar Naypyidaw, Namibia Windhoek, Nepal Kathmandu, Netherlands Amsterdam,
New-Zealand Wellington, Nicaragua Managua, Niger Niamey, Nigeria Abuja, North-Korea Pyongyang,
North-Macedonia Skopje, Norway Oslo, Oman Muscat, Pakistan Islamabad, Palau Ngerulmud, Paraguay Asuncion, Peru Lima,
Philippines Manila, Poland Warsaw, Portugal Lisbon, Qatar Doha, Romania Bucharest, Russia Moscow, Rwanda Kigali,
Saint-Lucia Castries, Samoa Apia, Saudi-Arabia Riyadh, Senegal Dakar, Serbia Belgrade, Seychelles Victoria,
Sierra-Leone Freetown, Slovakia Bratislava, Slovenia Ljubljana, Somalia Mogadishu, South-Korea Seoul, Spain Madrid,
Sri-Lanka Colombo, Sudan Khartoum, Suriname Paramaribo, Sweden Stockholm, Switzerland Bern, Syria Damascus,
Taiwan Taipei, Tajikistan Dushanbe, Tanzania Dodoma, Thailand Bangkok, Togo Lome, Tonga Nukualofa, Tunisia Tunis,
Turkey Ankara, Turkmenistan Ashgabat, Tuvalu Funafuti, Uganda Kampala, Ukraine Kyiv, Uruguay Montevideo,
Uzbekistan Tashkent, Vanuatu Port-Vila, Venezuela Caracas, Zambia Lusaka, Zimbabwe Harare
"""

_OTHER_CITIES = """
Alexandria Antwerp Auckland Barcelona Basel Bergen Boston Bordeaux Casablanca Chicago Cologne Dubai Durban Florence
Geneva Glasgow Gothenburg Guadalajara Hamburg Ho-Chi-Minh-City Istanbul Johannesburg Karachi Krakow Lagos Marseille
Medellin Melbourne Milan Montreal Mumbai Munich Osaka Porto Rotterdam Salzburg Shanghai Sydney Thessaloniki Toronto
"""

_BEGINNINGS = """
Abr Ald Balm Bels Cald Corv Delm Drav Elm Esk Fenn Frav Gald Grev Halv Hesm Ilv Ist Jald Jorv Kelm Krav Lorv Leth
Mirand Morv Norv Nelv Orl Ostr Pelm Quiv Rosv Selv Tarv Zar
"""
_ENDINGS = """
enia oria ovia osia ara uria andia ithia elia umbria
"""

CAPITAL_OF: dict[str, str] = dict(pair.split() for pair in " ".join(_PAIRS.split()).split(", "))
"""160 countries and their capitals."""

OTHER_CITIES: tuple[str, ...] = tuple(_OTHER_CITIES.split())
"""40 cities that are nobody's capital."""

INVENTED_COUNTRIES: tuple[str, ...] = tuple(
    beginning + ending for beginning in _BEGINNINGS.split() for ending in _ENDINGS.split()
)
"""360 countries that do not exist and have no capital.

So many, because with few of them a model learns which countries are invented instead of how to copy.
"""
