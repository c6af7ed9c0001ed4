"""Function words of Italian, Spanish and English that are not worth a target: syntax alone predicts them.

Written for this project. Negations are left out of the lists on purpose (no, non, né, nessuno, senza, nega, sin, ni,
ningún, niega, not, nor, without, never, denies): in a clinical note they decide the label.
"""

from __future__ import annotations

_ITALIAN = """
a ad al allo alla ai agli alle all da dal dallo dalla dai dagli dalle dall di del dello della dei degli delle dell
in nel nello nella nei negli nelle nell con col coi su sul sullo sulla sui sugli sulle sull per tra fra il lo la i gli
le l un uno una e ed o od ma che chi cui come anche inoltre poi quindi se si ci vi ne mi ti lui lei loro suo sua suoi
sue questo questa questi queste quello quella quelli quelle quest quell è sono era erano essere stato stata stati state
ha hanno aveva avevano avere avuto viene vengono d c s dove quando mentre già
"""
_SPANISH = """
a al ante con contra de del desde durante en entre hacia hasta para por según sobre tras el la los las lo un una unos
unas y e o u pero que quien cual cuyo como también además si se le les su sus este esta estos estas ese esa esos esas
aquel es son era eran ser sido fue está están estaba ha han había haber donde cuando mientras ya muy
"""
_ENGLISH = """
a an the of to in on at by for with from into onto over under about as and or but if then than that this these those
which who whom whose it its he she his her him they their them we our you your i is are was were be been being has have
had having do does did will would can could may might should shall also there here when where while so such very
"""

STOP_WORDS: frozenset[str] = frozenset((_ITALIAN + _SPANISH + _ENGLISH).split())
