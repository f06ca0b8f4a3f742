"""Countries and their capitals: facts that any language model with some reading knows."""

CAPITALS: dict[str, str] = dict(
    line.split(": ")
    for line in """\
Afghanistan: Kabul
Albania: Tirana
Algeria: Algiers
Angola: Luanda
Argentina: Buenos Aires
Armenia: Yerevan
Australia: Canberra
Austria: Vienna
Azerbaijan: Baku
Bahrain: Manama
Bangladesh: Dhaka
Belarus: Minsk
Belgium: Brussels
Bhutan: Thimphu
Bolivia: La Paz
Bosnia and Herzegovina: Sarajevo
Botswana: Gaborone
Brazil: Brasília
Bulgaria: Sofia
Burkina Faso: Ouagadougou
Cambodia: Phnom Penh
Cameroon: Yaoundé
Canada: Ottawa
Chad: N'Djamena
Chile: Santiago
China: Beijing
Colombia: Bogotá
Costa Rica: San José
Croatia: Zagreb
Cuba: Havana
Cyprus: Nicosia
Denmark: Copenhagen
Ecuador: Quito
Egypt: Cairo
El Salvador: San Salvador
Eritrea: Asmara
Estonia: Tallinn
Ethiopia: Addis Ababa
Fiji: Suva
Finland: Helsinki
France: Paris
Gabon: Libreville
Georgia: Tbilisi
Germany: Berlin
Ghana: Accra
Greece: Athens
Guinea: Conakry
Guyana: Georgetown
Haiti: Port-au-Prince
Honduras: Tegucigalpa
Hungary: Budapest
Iceland: Reykjavik
India: New Delhi
Indonesia: Jakarta
Iran: Tehran
Iraq: Baghdad
Ireland: Dublin
Israel: Jerusalem
Italy: Rome
Jamaica: Kingston
Japan: Tokyo
Jordan: Amman
Kenya: Nairobi
Kyrgyzstan: Bishkek
Laos: Vientiane
Latvia: Riga
Lebanon: Beirut
Liberia: Monrovia
Libya: Tripoli
Lithuania: Vilnius
Madagascar: Antananarivo
Malawi: Lilongwe
Malaysia: Kuala Lumpur
Mali: Bamako
Malta: Valletta
Mauritania: Nouakchott
Moldova: Chisinau
Mongolia: Ulaanbaatar
Montenegro: Podgorica
Morocco: Rabat
Mozambique: Maputo
Myanmar: Naypyidaw
Namibia: Windhoek
Nepal: Kathmandu
New Zealand: Wellington
Nicaragua: Managua
Niger: Niamey
Nigeria: Abuja
North Korea: Pyongyang
Norway: Oslo
Oman: Muscat
Pakistan: Islamabad
Paraguay: Asunción
Peru: Lima
Poland: Warsaw
Portugal: Lisbon
Qatar: Doha
Romania: Bucharest
Russia: Moscow
Rwanda: Kigali
Saudi Arabia: Riyadh
Senegal: Dakar
Serbia: Belgrade
Sierra Leone: Freetown
Slovakia: Bratislava
Slovenia: Ljubljana
Somalia: Mogadishu
South Korea: Seoul
Spain: Madrid
Sri Lanka: Colombo
Sudan: Khartoum
Suriname: Paramaribo
Sweden: Stockholm
Switzerland: Bern
Syria: Damascus
Taiwan: Taipei
Tanzania: Dodoma
Thailand: Bangkok
Togo: Lomé
Tunisia: Tunis
Turkey: Ankara
Uganda: Kampala
Ukraine: Kyiv
Uruguay: Montevideo
Uzbekistan: Tashkent
Venezuela: Caracas
Vietnam: Hanoi
Yemen: Sanaa
Zambia: Lusaka
Zimbabwe: Harare
""".splitlines()
)
"""Country to capital; where a country has two, the one that is called so most often."""
