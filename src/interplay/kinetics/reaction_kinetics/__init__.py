"""Fluctuations and correlations in chemical reaction kinetics and population dynamics.

| | |
| --- | --- |
| family | kinetics |
| paper | U. C. Täuber, "Fluctuations and Correlations in Chemical Reaction Kinetics and Population Dynamics", 2018 |
| arXiv | 1807.01248 |
| official code | none |
| interface | NumPy arrays in and out, pandas tables by `to_frame()` |
| deterministic | given the seed, whatever the number of workers |

Reacting particles, or individuals that breed, die and inhibit one another: first well mixed (`ReactionNetwork`,
`simulate`), then on lattices (`Lattice` and the models), with the measurements (`observables`, `exponents`) that show
what rate equations miss.

Differences from the chapter: it is a review without code, so that every choice of discretisation is ours and stated
where it is made. Rates are per particle and shared by the `2 d` neighbours; a hop onto the own species is blocked where
sites are restricted; 2A -> 0 at rate k has propensity k n (n - 1) unless `convention="combinatorial"`. The literature's
critical values and exponents were checked by simulation in the tests and in the study.
"""

from interplay.kinetics.reaction_kinetics import exponents as exponents
from interplay.kinetics.reaction_kinetics import observables as observables
from interplay.kinetics.reaction_kinetics.lattice import Lattice as Lattice
from interplay.kinetics.reaction_kinetics.lattice import LatticeModel as LatticeModel
from interplay.kinetics.reaction_kinetics.lattice import LatticeRuns as LatticeRuns
from interplay.kinetics.reaction_kinetics.lattice import separated as separated
from interplay.kinetics.reaction_kinetics.lattice_models import BirthDeathCoagulation as BirthDeathCoagulation
from interplay.kinetics.reaction_kinetics.lattice_models import BondPercolation as BondPercolation
from interplay.kinetics.reaction_kinetics.lattice_models import ContactProcess as ContactProcess
from interplay.kinetics.reaction_kinetics.lattice_models import LotkaVolterra as LotkaVolterra
from interplay.kinetics.reaction_kinetics.lattice_models import MayLeonard as MayLeonard
from interplay.kinetics.reaction_kinetics.lattice_models import PairAnnihilation as PairAnnihilation
from interplay.kinetics.reaction_kinetics.lattice_models import RockPaperScissors as RockPaperScissors
from interplay.kinetics.reaction_kinetics.lattice_models import TwoSpeciesAnnihilation as TwoSpeciesAnnihilation
from interplay.kinetics.reaction_kinetics.network import ReactionNetwork as ReactionNetwork
from interplay.kinetics.reaction_kinetics.trajectories import Distribution as Distribution
from interplay.kinetics.reaction_kinetics.trajectories import Moments as Moments
from interplay.kinetics.reaction_kinetics.trajectories import Trajectories as Trajectories
from interplay.kinetics.reaction_kinetics.well_mixed import noise_spectrum as noise_spectrum
from interplay.kinetics.reaction_kinetics.well_mixed import simulate as simulate
