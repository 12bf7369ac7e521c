# Written by tools/public_stub.py.
from .schemes.diffusion.add import ADD as ADD
from .objectives.features.afd import AFD as AFD
from .objectives.logits.akl import AKL as AKL
from .objectives.features.am_radio import AMRADIO as AMRADIO
from .objectives.logits.amtml_kd import AMTMLKD as AMTMLKD
from .schemes.robust.ard import ARD as ARD
from .objectives.features.activation_boundary import ActivationBoundary as ActivationBoundary
from .schemes.robust.adaad import AdaAD as AdaAD
from .schemes.adversarial.adversarial import Adversarial as Adversarial
from .schemes.robust.adversarial_training import AdversarialTraining as AdversarialTraining
from .objectives.logits.affine_invariant import AffineInvariant as AffineInvariant
from .objectives.relations.affinity_mimicking import AffinityMimicking as AffinityMimicking
from .weightings.agreement import Agreement as Agreement
from .objectives.logits.alpha_beta import AlphaBeta as AlphaBeta
from .objectives.logits.alphanet import AlphaNet as AlphaNet
from .teachers.amalgamated import Amalgamated as Amalgamated
from .objectives.features.attention_transfer import AttentionTransfer as AttentionTransfer
from .tasks.audio_classification import AudioClassification as AudioClassification
from .objectives.relations.augmented_feature import AugmentedFeature as AugmentedFeature
from .objectives.logits.bake import BAKE as BAKE
from .objectives.logits.bdkd import BDKD as BDKD
from .objectives.relations.bingo import BINGO as BINGO
from .schemes.self_distillation.byot import BYOT as BYOT
from .items import Batch as Batch
from .objectives.logits.bild import BiLD as BiLD
from .schemes.adversarial.boundary_samples import BoundarySamples as BoundarySamples
from .objectives.logits.c2kd import C2KD as C2KD
from .objectives.features.camkd import CAMKD as CAMKD
from .objectives.relations.cirkd_memory import CIRKDMemory as CIRKDMemory
from .objectives.relations.cirkd_minibatch import CIRKDMinibatch as CIRKDMinibatch
from .objectives.relations.cka import CKA as CKA
from .objectives.features.clip_feature import CLIPFeature as CLIPFeature
from .objectives.relations.clip_gradient import CLIPGradient as CLIPGradient
from .objectives.features.clip_self import CLIPSelf as CLIPSelf
from .schemes.data_free.cmi import CMI as CMI
from .objectives.relations.crd import CRD as CRD
from .objectives.logits.cs_kd import CSKD as CSKD
from .objectives.labels.ctc import CTC as CTC
from .objectives.logits.ctc_kd import CTCKD as CTCKD
from .objectives.logits.ctc_sequence import CTCSequence as CTCSequence
from .objectives.logits.ctkd import CTKD as CTKD
from .objectives.features.cwd import CWD as CWD
from .cards import Card as Card
from .objectives.features.cat_kd import CatKD as CatKD
from .tasks.classification import Classification as Classification
from .schemes.offline.cold_brew import ColdBrew as ColdBrew
from .objectives.relations.compress import CompRess as CompRess
from .schemes.diffusion.consistency_distillation import ConsistencyDistillation as ConsistencyDistillation
from .schemes.diffusion.consistency_training import ConsistencyTraining as ConsistencyTraining
from .objectives.labels.contrastive import Contrastive as Contrastive
from .objectives.relations.contrastive_relation import ContrastiveRelation as ContrastiveRelation
from .objectives.relations.correlation_congruence import CorrelationCongruence as CorrelationCongruence
from .objectives.labels.cross_entropy import CrossEntropy as CrossEntropy
from .objectives.logits.crosskd import CrossKD as CrossKD
from .schemes.data_free.dafl import DAFL as DAFL
from .objectives.relations.dcd import DCD as DCD
from .objectives.logits.ddgsd import DDGSD as DDGSD
from .schemes.offline.der import DER as DER
from .objectives.logits.detr_distill import DETRDistill as DETRDistill
from .schemes.data_free.dfad import DFAD as DFAD
from .schemes.data_free.dfq import DFQ as DFQ
from .objectives.logits.dgkd import DGKD as DGKD
from .schemes.self_distillation.dino import DINO as DINO
from .objectives.features.dinov2 import DINOv2 as DINOv2
from .objectives.logits.dist import DIST as DIST
from .objectives.features.dist_plus import DISTPlus as DISTPlus
from .objectives.logits.dkd import DKD as DKD
from .schemes.self_distillation.dks import DKS as DKS
from .objectives.logits.dlb import DLB as DLB
from .schemes.diffusion.dmd import DMD as DMD
from .schemes.diffusion.dmd2 import DMD2 as DMD2
from .schemes.offline.dphubert import DPHuBERT as DPHuBERT
from .schemes.language.dpkd import DPKD as DPKD
from .schemes.language.dpkd_written import DPKDWritten as DPKDWritten
from .objectives.relations.dsd import DSD as DSD
from .objectives.logits.dskd import DSKD as DSKD
from .objectives.logits.dskd_cma import DSKDCMA as DSKDCMA
from .objectives.logits.dwpose import DWPose as DWPose
from .objectives.relations.darkrank import DarkRank as DarkRank
from .schemes.data_free.deep_inversion import DeepInversion as DeepInversion
from .schemes.self_distillation.deep_supervision import DeepSupervision as DeepSupervision
from .objectives.logits.deit_hard import DeiTHard as DeiTHard
from .objectives.logits.deit_soft import DeiTSoft as DeiTSoft
from .objectives.logits.denoised_matching import DenoisedMatching as DenoisedMatching
from .objectives.labels.denoising import Denoising as Denoising
from .objectives.logits.dense_localisation_distillation import DenseLocalisationDistillation as DenseLocalisationDistillation
from .tasks.depth import Depth as Depth
from .tasks.detection import Detection as Detection
from .objectives.features.diffkd import DiffKD as DiffKD
from .weightings.difficulty import Difficulty as Difficulty
from .tasks.diffusion import Diffusion as Diffusion
from .objectives.features.disco import DisCo as DisCo
from .schemes.language.distillm import DistiLLM as DistiLLM
from .schemes.language.distillm2 import DistiLLM2 as DistiLLM2
from .objectives.features.distilbert import DistilBERT as DistilBERT
from .objectives.features.distilhubert import DistilHuBERT as DistilHuBERT
from .schemes.language.distil_whisper import DistilWhisper as DistilWhisper
from .objectives.features.distillation_experts import DistillationExperts as DistillationExperts
from .objectives.labels.distribution_focal import DistributionFocal as DistributionFocal
from .objectives.logits.ebkd import EBKD as EBKD
from .objectives.relations.ega import EGA as EGA
from .schemes.diffusion.easy_consistency import EasyConsistency as EasyConsistency
from .objectives.logits.edge_sam import EdgeSAM as EdgeSAM
from .schemes.self_distillation.ema import Ema as Ema
from .objectives.features.embedding_regression import EmbeddingRegression as EmbeddingRegression
from .teachers.ensemble import Ensemble as Ensemble
from .weightings.entropy import Entropy as Entropy
from .objectives.features.fbkd import FBKD as FBKD
from .schemes.offline.fcfd import FCFD as FCFD
from .schemes.diffusion.f_distill import FDistill as FDistill
from .schemes.online.ffl import FFL as FFL
from .objectives.features.fgd import FGD as FGD
from .schemes.self_distillation.frskd import FRSKD as FRSKD
from .objectives.features.fsp import FSP as FSP
from .objectives.features.factor_transfer import FactorTransfer as FactorTransfer
from .schemes.data_free.fast_data_free import FastDataFree as FastDataFree
from .schemes.offline.filter_kd import FilterKD as FilterKD
from .objectives.features.fitnet import FitNet as FitNet
from .schemes.offline.folded_transform import FoldedTransform as FoldedTransform
from .objectives.logits.forward_kl import ForwardKL as ForwardKL
from .teachers.frozen import Frozen as Frozen
from .objectives.relations.gcrd import GCRD as GCRD
from .objectives.logits.gkl import GKL as GKL
from .objectives.logits.gold import GOLD as GOLD
from .objectives.relations.gsp import GSP as GSP
from .balances.gradient_norm import GradientNorm as GradientNorm
from .tasks.graph_classification import GraphClassification as GraphClassification
from .schemes.diffusion.guidance_distillation import GuidanceDistillation as GuidanceDistillation
from .objectives.relations.hkd import HKD as HKD
from .schemes.robust.iad import IAD as IAD
from .schemes.robust.iad_ii import IADII as IADII
from .objectives.features.ickd import ICKD as ICKD
from .objectives.features.ifvd import IFVD as IFVD
from .objectives.logits.ikl import IKL as IKL
from .objectives.relations.irg import IRG as IRG
from .objectives.relations.itrd import ITRD as ITRD
from .tasks.image_text import ImageText as ImageText
from .objectives.relations.interactive_contrastive import InteractiveContrastive as InteractiveContrastive
from .objectives.logits.jsd import JSD as JSD
from .objectives.features.jacobian import Jacobian as Jacobian
from .objectives.logits.kd import KD as KD
from .schemes.online.kdcl import KDCL as KDCL
from .objectives.logits.kd_detr import KDDETR as KDDETR
from .schemes.language.kdrl import KDRL as KDRL
from .objectives.features.kdsvd import KDSVD as KDSVD
from .schemes.offline.krd import KRD as KRD
from .objectives.features.kta import KTA as KTA
from .schemes.diffusion.ladd import LADD as LADD
from .schemes.diffusion.lcm import LCM as LCM
from .objectives.logits.llp import LLP as LLP
from .objectives.relations.llava_kd import LLaVAKD as LLaVAKD
from .objectives.relations.lsp import LSP as LSP
from .objectives.labels.label_smoothing import LabelSmoothing as LabelSmoothing
from .tasks.language import Language as Language
from .tasks.link_prediction import LinkPrediction as LinkPrediction
from .objectives.logits.listmle import ListMLE as ListMLE
from .objectives.logits.localisation_distillation import LocalisationDistillation as LocalisationDistillation
from .objectives.logits.logit_mae import LogitMAE as LogitMAE
from .objectives.logits.logit_mse import LogitMSE as LogitMSE
from .objectives.logits.logit_standardization import LogitStandardization as LogitStandardization
from .objectives.features.lwm import LwM as LwM
from .objectives.logits.meal import MEAL as MEAL
from .objectives.logits.mft import MFT as MFT
from .objectives.features.mgd import MGD as MGD
from .objectives.logits.mlkd import MLKD as MLKD
from .objectives.features.mvd import MVD as MVD
from .objectives.logits.margin_mse import MarginMSE as MarginMSE
from .schemes.offline.masked_images import MaskedImages as MaskedImages
from .schemes.offline.masked_video import MaskedVideo as MaskedVideo
from .objectives.features.masked_views import MaskedViews as MaskedViews
from .schemes.diffusion.mean_flow import MeanFlow as MeanFlow
from .objectives.labels.mean_squared_error import MeanSquaredError as MeanSquaredError
from .schemes.language.minillm import MiniLLM as MiniLLM
from .objectives.relations.minilm import MiniLM as MiniLM
from .objectives.relations.minilmv2 import MiniLMv2 as MiniLMv2
from .schemes.self_distillation.mixskd import MixSKD as MixSKD
from .objectives.features.mobilebert import MobileBERT as MobileBERT
from .objectives.features.mobile_sam import MobileSAM as MobileSAM
from .schemes.offline.momentum_contrast import MomentumContrast as MomentumContrast
from .objectives.logits.multi_label_kd import MultiLabelKD as MultiLabelKD
from .tasks.multi_view_classification import MultiViewClassification as MultiViewClassification
from .objectives.logits.multilevel_ot import MultilevelOT as MultilevelOT
from .objectives.features.multilingual_mse import MultilingualMSE as MultilingualMSE
from .schemes.online.mutual import Mutual as Mutual
from .objectives.logits.nkd import NKD as NKD
from .objectives.features.norm import NORM as NORM
from .schemes.offline.nosmog import NOSMOG as NOSMOG
from .objectives.features.nst import NST as NST
from .core import Net as Net
from .tasks.node_classification import NodeClassification as NodeClassification
from .objectives.logits.normkd import NormKD as NormKD
from .objectives.features.ofa import OFA as OFA
from .objectives.features.ofd import OFD as OFD
from .schemes.online.okddip import OKDDip as OKDDip
from .schemes.online.one import ONE as ONE
from .objectives.logits.opd import OPD as OPD
from .core import Objective as Objective
from .core import Objectives as Objectives
from .schemes.diffusion.ode_regression import OdeRegression as OdeRegression
from .schemes.offline.offline import Offline as Offline
from .schemes.language.on_policy import OnPolicy as OnPolicy
from .schemes.diffusion.on_policy_diffusion import OnPolicyDiffusion as OnPolicyDiffusion
from .engine import Optimization as Optimization
from .items import Outputs as Outputs
from .objectives.labels.own_loss import OwnLoss as OwnLoss
from .objectives.features.pad import PAD as PAD
from .schemes.offline.pate import PATE as PATE
from .schemes.online.pcl import PCL as PCL
from .objectives.features.pkd import PKD as PKD
from .objectives.relations.pkt import PKT as PKT
from .objectives.logits.pld import PLD as PLD
from .objectives.features.podnet import PODNet as PODNet
from .objectives.logits.ps_kd import PSKD as PSKD
from .objectives.labels.pair_cross_entropy import PairCrossEntropy as PairCrossEntropy
from .objectives.features.patient_kd import PatientKD as PatientKD
from .objectives.features.phi_s import PhiS as PhiS
from .objectives.relations.pixel_point_contrast import PixelPointContrast as PixelPointContrast
from .objectives.relations.point_affinity import PointAffinity as PointAffinity
from .tasks.point_classification import PointClassification as PointClassification
from .objectives.features.point_distiller import PointDistiller as PointDistiller
from .tasks.pose import Pose as Pose
from .schemes.self_distillation.previous_epoch import PreviousEpoch as PreviousEpoch
from .teachers.private_votes import PrivateVotes as PrivateVotes
from .schemes.language.privileged_context import PrivilegedContext as PrivilegedContext
from .objectives.logits.probability_shift import ProbabilityShift as ProbabilityShift
from .schemes.diffusion.progressive import Progressive as Progressive
from .objectives.logits.prompt_kd import PromptKD as PromptKD
from .schemes.offline.prompt_loop import PromptLoop as PromptLoop
from .tasks.promptable_segmentation import PromptableSegmentation as PromptableSegmentation
from .objectives.relations.rkd import RKD as RKD
from .objectives.logits.rld import RLD as RLD
from .schemes.robust.rslad import RSLAD as RSLAD
from .objectives.logits.rank_distil import RankDistil as RankDistil
from .tasks.ranking import Ranking as Ranking
from .objectives.labels.ranking_cross_entropy import RankingCrossEntropy as RankingCrossEntropy
from .schemes.language.rationale_consistency import RationaleConsistency as RationaleConsistency
from .tasks.recommendation import Recommendation as Recommendation
from .teachers.recorded import Recorded as Recorded
from .schemes.diffusion.reflow import Reflow as Reflow
from .schemes.offline.region_crops import RegionCrops as RegionCrops
from .tasks.regression import Regression as Regression
from .objectives.logits.regression_kd import RegressionKD as RegressionKD
from .objectives.relations.relational_representation import RelationalRepresentation as RelationalRepresentation
from .objectives.logits.relaxed_ranking import RelaxedRanking as RelaxedRanking
from .tasks.representation import Representation as Representation
from .schemes.offline.reused_classifier import ReusedClassifier as ReusedClassifier
from .objectives.logits.reverse_kl import ReverseKL as ReverseKL
from .objectives.features.review_kd import ReviewKD as ReviewKD
from .teachers.routed import Routed as Routed
from .objectives.features.sad import SAD as SAD
from .schemes.diffusion.scm import SCM as SCM
from .objectives.logits.sdd import SDD as SDD
from .objectives.relations.seed import SEED as SEED
from .schemes.offline.sftn import SFTN as SFTN
from .objectives.relations.skd_pairwise import SKDPairwise as SKDPairwise
from .objectives.features.srd import SRD as SRD
from .objectives.features.srrl import SRRL as SRRL
from .objectives.relations.sskd import SSKD as SSKD
from .objectives.logits.sampled_kd import SampledKD as SampledKD
from .generation.options import Sampling as Sampling
from .schemes.self_distillation.sandwich import Sandwich as Sandwich
from .objectives.labels.scale_invariant_log import ScaleInvariantLog as ScaleInvariantLog
from .cards import Schedule as Schedule
from .core import Scheme as Scheme
from .objectives.labels.segment_anything import SegmentAnything as SegmentAnything
from .tasks.segmentation import Segmentation as Segmentation
from .objectives.features.semckd import SemCKD as SemCKD
from .tasks.sentence_embedding import SentenceEmbedding as SentenceEmbedding
from .tasks.seq2seq import Seq2Seq as Seq2Seq
from .objectives.features.seq2seq_attention import Seq2SeqAttention as Seq2SeqAttention
from .schemes.language.sequence_kd import SequenceKD as SequenceKD
from .schemes.language.sequence_level import SequenceLevel as SequenceLevel
from .schemes.offline.several_students import SeveralStudents as SeveralStudents
from .objectives.labels.simcc import SimCC as SimCC
from .objectives.features.simkd import SimKD as SimKD
from .objectives.features.simreg import SimReg as SimReg
from .objectives.relations.similarity_preserving import SimilarityPreserving as SimilarityPreserving
from .objectives.logits.sinkd import SinKD as SinKD
from .objectives.logits.skewed_forward_kl import SkewedForwardKL as SkewedForwardKL
from .objectives.logits.skewed_reverse_kl import SkewedReverseKL as SkewedReverseKL
from .objectives.logits.sparse_soft_labels import SparseSoftLabels as SparseSoftLabels
from .tasks.speaker_verification import SpeakerVerification as SpeakerVerification
from .schemes.language.speculative import Speculative as Speculative
from .tasks.speech_recognition import SpeechRecognition as SpeechRecognition
from .objectives.logits.spherical_kd import SphericalKD as SphericalKD
from .schemes.offline.spot_adaptive import SpotAdaptive as SpotAdaptive
from .schemes.language.step_by_step import StepByStep as StepByStep
from .objectives.logits.streamlined_kd import StreamlinedKD as StreamlinedKD
from .objectives.logits.symmetric_kl import SymmetricKL as SymmetricKL
from .objectives.logits.taid import TAID as TAID
from .objectives.logits.ttm import TTM as TTM
from .objectives.logits.tvd import TVD as TVD
from .tasks.tabular_classification import TabularClassification as TabularClassification
from .tasks.tabular_regression import TabularRegression as TabularRegression
from .core import Teacher as Teacher
from .objectives.features.temporal_difference import TemporalDifference as TemporalDifference
from .objectives.relations.temporal_relation import TemporalRelation as TemporalRelation
from .tasks.text_classification import TextClassification as TextClassification
from .objectives.logits.tf_kd import TfKD as TfKD
from .objectives.logits.tf_kd_self import TfKDSelf as TfKDSelf
from .objectives.features.theia import Theia as Theia
from .objectives.features.tinybert import TinyBERT as TinyBERT
from .objectives.logits.todi import ToDi as ToDi
from .objectives.logits.top_k import TopK as TopK
from .objectives.logits.top_k_ranking import TopKRanking as TopKRanking
from .training.fit import Training as Training
from .objectives.logits.transducer_kd import TransducerKD as TransducerKD
from .weightings.truncated_importance import TruncatedImportance as TruncatedImportance
from .objectives.features.two_dpass import TwoDPASS as TwoDPASS
from .objectives.logits.uld import ULD as ULD
from .objectives.features.unic import UNIC as UNIC
from .objectives.logits.uskd import USKD as USKD
from .balances.uncertainty import Uncertainty as Uncertainty
from .core import Update as Update
from .objectives.features.vid import VID as VID
from .objectives.features.vitkd import ViTKD as ViTKD
from .tasks.video_classification import VideoClassification as VideoClassification
from .objectives.logits.view_consistency import ViewConsistency as ViewConsistency
from .schemes.offline.views import Views as Views
from .objectives.features.vkd import VkD as VkD
from .objectives.relations.wcord import WCoRD as WCoRD
from .objectives.features.wkd_feature import WKDFeature as WKDFeature
from .objectives.logits.wkd_logit import WKDLogit as WKDLogit
from .objectives.logits.wsld import WSLD as WSLD
from .objectives.logits.wttm import WTTM as WTTM
from .schemes.data_free.zskt import ZSKT as ZSKT
from .objectives.features.activation_boundary import activation_boundary_loss as activation_boundary_loss
from .objectives.features.afd import afd_loss as afd_loss
from .objectives.logits.affine_invariant import affine_invariant_loss as affine_invariant_loss
from .objectives.relations.affinity_mimicking import affinity_mimicking_loss as affinity_mimicking_loss
from .objectives.logits.akl import akl_loss as akl_loss
from .objectives.logits.alpha_beta import alpha_beta_loss as alpha_beta_loss
from .objectives.logits.alphanet import alphanet_loss as alphanet_loss
from .objectives.features.am_radio import am_radio_spatial_loss as am_radio_spatial_loss
from .objectives.features.am_radio import am_radio_summary_loss as am_radio_summary_loss
from .objectives.logits.amtml_kd import amtml_kd_angle_loss as amtml_kd_angle_loss
from .objectives.logits.amtml_kd import amtml_kd_hint_loss as amtml_kd_hint_loss
from .objectives.logits.amtml_kd import amtml_kd_loss as amtml_kd_loss
from .objectives.features.attention_transfer import attention_transfer_loss as attention_transfer_loss
from .objectives.relations.augmented_feature import augmented_feature_loss as augmented_feature_loss
from .objectives.logits.bake import bake_loss as bake_loss
from .objectives.logits.bdkd import bdkd_loss as bdkd_loss
from .objectives.logits.bild import bild_loss as bild_loss
from .objectives.relations.bingo import bingo_loss as bingo_loss
from .objectives.logits.c2kd import c2kd_loss as c2kd_loss
from .objectives.features.camkd import camkd_feature_loss as camkd_feature_loss
from .objectives.features.camkd import camkd_logit_loss as camkd_logit_loss
from .objectives.features.cat_kd import cat_kd_loss as cat_kd_loss
from .objectives.relations.cirkd_memory import cirkd_memory_loss as cirkd_memory_loss
from .objectives.relations.cirkd_minibatch import cirkd_minibatch_loss as cirkd_minibatch_loss
from .objectives.relations.cka import cka_loss as cka_loss
from .objectives.features.clip_feature import clip_feature_loss as clip_feature_loss
from .objectives.relations.clip_gradient import clip_gradient_loss as clip_gradient_loss
from .objectives.features.clip_self import clip_self_loss as clip_self_loss
from .objectives.relations.compress import compress_loss as compress_loss
from .objectives.labels.contrastive import contrastive_loss as contrastive_loss
from .objectives.relations.correlation_congruence import correlation_congruence_loss as correlation_congruence_loss
from .objectives.relations.crd import crd_loss as crd_loss
from .objectives.labels.cross_entropy import cross_entropy_loss as cross_entropy_loss
from .objectives.logits.crosskd import cross_kd_loss as cross_kd_loss
from .objectives.logits.cs_kd import cs_kd_loss as cs_kd_loss
from .objectives.relations.dsd import csd_loss as csd_loss
from .objectives.logits.ctc_kd import ctc_kd_loss as ctc_kd_loss
from .objectives.labels.ctc import ctc_loss as ctc_loss
from .objectives.logits.ctc_sequence import ctc_sequence_loss as ctc_sequence_loss
from .objectives.logits.ctkd import ctkd_loss as ctkd_loss
from .objectives.features.cwd import cwd_loss as cwd_loss
from .objectives.relations.darkrank import darkrank_loss as darkrank_loss
from .objectives.relations.dcd import dcd_loss as dcd_loss
from .objectives.logits.ddgsd import ddgsd_loss as ddgsd_loss
from .objectives.logits.deit_hard import deit_hard_loss as deit_hard_loss
from .objectives.logits.denoised_matching import denoised_matching_loss as denoised_matching_loss
from .objectives.labels.denoising import denoising_loss as denoising_loss
from .objectives.logits.dense_localisation_distillation import dense_localisation_distillation_loss as dense_localisation_distillation_loss
from .objectives.logits.detr_distill import detr_distill_loss as detr_distill_loss
from .objectives.logits.dgkd import dgkd_loss as dgkd_loss
from .objectives.features.diffkd import diffkd_loss as diffkd_loss
from .objectives.logits.dino import dino_loss as dino_loss
from .objectives.features.dinov2 import dinov2_loss as dinov2_loss
from .objectives.logits.streamlined_kd import direction_loss as direction_loss
from .objectives.features.disco import disco_loss as disco_loss
from .objectives.logits.dist import dist_loss as dist_loss
from .objectives.features.dist_plus import dist_plus_loss as dist_plus_loss
from .distillation import distil as distil
from .objectives.features.distilbert import distilbert_loss as distilbert_loss
from .objectives.features.distilhubert import distilhubert_loss as distilhubert_loss
from .objectives.features.distillation_experts import distillation_experts_loss as distillation_experts_loss
from .objectives.labels.distribution_focal import distribution_focal_loss as distribution_focal_loss
from .objectives.logits.dkd import dkd_loss as dkd_loss
from .objectives.logits.dskd_cma import dskd_cma_loss as dskd_cma_loss
from .objectives.logits.dskd import dskd_loss as dskd_loss
from .objectives.logits.dwpose import dwpose_loss as dwpose_loss
from .objectives.logits.ebkd import ebkd_loss as ebkd_loss
from .objectives.logits.edge_sam import edge_sam_loss as edge_sam_loss
from .objectives.relations.ega import ega_loss as ega_loss
from .objectives.features.embedding_regression import embedding_regression_loss as embedding_regression_loss
from .objectives.features.factor_transfer import factor_transfer_loss as factor_transfer_loss
from .objectives.features.fbkd import fbkd_loss as fbkd_loss
from .objectives.features.fgd import fgd_loss as fgd_loss
from .training.fit import fit as fit
from .objectives.features.fitnet import fitnet_loss as fitnet_loss
from .objectives.logits.forward_kl import forward_kl_loss as forward_kl_loss
from .objectives.features.fsp import fsp_loss as fsp_loss
from .objectives.relations.gcrd import gcrd_loss as gcrd_loss
from .objectives.logits.gkl import gkl_loss as gkl_loss
from .objectives.logits.gold import gold_loss as gold_loss
from .objectives.relations.gsp import gsp_loss as gsp_loss
from .objectives.features.review_kd import hcl_loss as hcl_loss
from .objectives.relations.hkd import hkd_loss as hkd_loss
from .objectives.features.ickd import ickd_loss as ickd_loss
from .objectives.features.ifvd import ifvd_loss as ifvd_loss
from .objectives.relations.interactive_contrastive import interactive_contrastive_loss as interactive_contrastive_loss
from .objectives.relations.irg import irg_graph_loss as irg_graph_loss
from .objectives.relations.irg import irg_transform_loss as irg_transform_loss
from .objectives.relations.itrd import itrd_correlation_loss as itrd_correlation_loss
from .objectives.relations.itrd import itrd_mutual_loss as itrd_mutual_loss
from .objectives.features.jacobian import jacobian_loss as jacobian_loss
from .objectives.logits.jsd import jsd_loss as jsd_loss
from .objectives.logits.kd_detr import kd_detr_loss as kd_detr_loss
from .objectives.logits.kd import kd_loss as kd_loss
from .objectives.features.kdsvd import kdsvd_loss as kdsvd_loss
from .objectives.features.kta import kta_affinity_loss as kta_affinity_loss
from .objectives.features.kta import kta_loss as kta_loss
from .objectives.labels.label_smoothing import label_smoothing_loss as label_smoothing_loss
from .objectives.features.two_dpass import level_fusion_loss as level_fusion_loss
from .objectives.logits.listmle import listmle_loss as listmle_loss
from .objectives.relations.llava_kd import llava_kd_loss as llava_kd_loss
from .objectives.logits.llp import llp_distribution_loss as llp_distribution_loss
from .objectives.logits.llp import llp_rank_loss as llp_rank_loss
from .deployment.predict import load as load
from .objectives.logits.localisation_distillation import localisation_distillation_loss as localisation_distillation_loss
from .objectives.logits.logit_mae import logit_mae_loss as logit_mae_loss
from .objectives.logits.logit_mse import logit_mse_loss as logit_mse_loss
from .objectives.relations.lsp import lsp_loss as lsp_loss
from .objectives.features.lwm import lwm_loss as lwm_loss
from .objectives.logits.margin_mse import margin_mse_loss as margin_mse_loss
from .objectives.features.masked_views import masked_views_loss as masked_views_loss
from .objectives.logits.meal import meal_discriminator_loss as meal_discriminator_loss
from .objectives.logits.meal import meal_similarity_loss as meal_similarity_loss
from .objectives.logits.ddgsd import mean_discrepancy_loss as mean_discrepancy_loss
from .objectives.labels.mean_squared_error import mean_squared_error_loss as mean_squared_error_loss
from .objectives.logits.mft import mft_loss as mft_loss
from .objectives.features.mgd import mgd_loss as mgd_loss
from .objectives.relations.minilmv2 import minilmv2_loss as minilmv2_loss
from .objectives.logits.mlkd import mlkd_batch_loss as mlkd_batch_loss
from .objectives.logits.mlkd import mlkd_class_loss as mlkd_class_loss
from .objectives.logits.mlkd import mlkd_loss as mlkd_loss
from .objectives.features.mobile_sam import mobile_sam_loss as mobile_sam_loss
from .objectives.features.mobilebert import mobilebert_attention_loss as mobilebert_attention_loss
from .objectives.features.mobilebert import mobilebert_feature_loss as mobilebert_feature_loss
from .objectives.logits.multilevel_ot import multilevel_ot_loss as multilevel_ot_loss
from .objectives.features.multilingual_mse import multilingual_mse_loss as multilingual_mse_loss
from .objectives.features.mvd import mvd_loss as mvd_loss
from .objectives.relations.correlation_congruence import neighbour_congruence_loss as neighbour_congruence_loss
from .objectives.logits.nkd import nkd_loss as nkd_loss
from .objectives.features.norm import norm_loss as norm_loss
from .objectives.logits.normkd import normkd_loss as normkd_loss
from .objectives.features.nst import nst_loss as nst_loss
from .objectives.features.ofa import ofa_loss as ofa_loss
from .objectives.features.ofd import ofd_loss as ofd_loss
from .objectives.logits.opd import opd_loss as opd_loss
from .objectives.labels.own_loss import own_loss as own_loss
from .objectives.features.pad import pad_loss as pad_loss
from .objectives.labels.pair_cross_entropy import pair_cross_entropy_loss as pair_cross_entropy_loss
from .objectives.features.patient_kd import patient_kd_loss as patient_kd_loss
from .objectives.features.phi_s import phi_s_loss as phi_s_loss
from .objectives.relations.pixel_point_contrast import pixel_point_contrast_loss as pixel_point_contrast_loss
from .objectives.features.pkd import pkd_loss as pkd_loss
from .objectives.relations.pkt import pkt_loss as pkt_loss
from .objectives.logits.pld import pld_loss as pld_loss
from .objectives.features.podnet import podnet_loss as podnet_loss
from .objectives.relations.point_affinity import point_affinity_loss as point_affinity_loss
from .objectives.features.point_distiller import point_distiller_loss as point_distiller_loss
from .objectives.logits.probability_shift import probability_shift_loss as probability_shift_loss
from .objectives.logits.prompt_kd import prompt_kd_loss as prompt_kd_loss
from .objectives.logits.ps_kd import ps_kd_loss as ps_kd_loss
from .objectives.relations.dsd import psd_loss as psd_loss
from .objectives.logits.rank_distil import rank_distil_loss as rank_distil_loss
from .objectives.labels.ranking_cross_entropy import ranking_cross_entropy_loss as ranking_cross_entropy_loss
from .objectives.logits.regression_kd import regression_kd_loss as regression_kd_loss
from .objectives.relations.relational_representation import relational_representation_loss as relational_representation_loss
from .objectives.logits.relaxed_ranking import relaxed_ranking_loss as relaxed_ranking_loss
from .objectives.logits.reverse_kl import reverse_kl_loss as reverse_kl_loss
from .objectives.relations.rkd import rkd_angle_loss as rkd_angle_loss
from .objectives.relations.rkd import rkd_distance_loss as rkd_distance_loss
from .objectives.logits.rld import rld_loss as rld_loss
from .objectives.features.sad import sad_loss as sad_loss
from .objectives.logits.sampled_kd import sampled_kd_loss as sampled_kd_loss
from .objectives.labels.scale_invariant_log import scale_invariant_log_loss as scale_invariant_log_loss
from .objectives.logits.sdd import sdd_loss as sdd_loss
from .objectives.relations.seed import seed_loss as seed_loss
from .objectives.labels.segment_anything import segment_anything_loss as segment_anything_loss
from .objectives.features.semckd import semckd_loss as semckd_loss
from .objectives.features.seq2seq_attention import seq2seq_attention_loss as seq2seq_attention_loss
from .objectives.labels.simcc import simcc_loss as simcc_loss
from .objectives.relations.similarity_preserving import similarity_preserving_loss as similarity_preserving_loss
from .objectives.features.simkd import simkd_loss as simkd_loss
from .objectives.features.simreg import simreg_loss as simreg_loss
from .objectives.logits.sinkd import sinkd_loss as sinkd_loss
from .objectives.relations.skd_pairwise import skd_pairwise_loss as skd_pairwise_loss
from .objectives.logits.skewed_forward_kl import skewed_forward_kl_loss as skewed_forward_kl_loss
from .objectives.logits.skewed_reverse_kl import skewed_reverse_kl_loss as skewed_reverse_kl_loss
from .objectives.logits.sparse_soft_labels import sparse_soft_labels_loss as sparse_soft_labels_loss
from .objectives.logits.spherical_kd import spherical_kd_loss as spherical_kd_loss
from .objectives.features.srd import srd_correlation_loss as srd_correlation_loss
from .objectives.features.srd import srd_loss as srd_loss
from .objectives.features.srrl import srrl_loss as srrl_loss
from .objectives.relations.sskd import sskd_contrastive_loss as sskd_contrastive_loss
from .objectives.relations.sskd import sskd_transformed_loss as sskd_transformed_loss
from .objectives.logits.streamlined_kd import streamlined_kd_loss as streamlined_kd_loss
from .objectives.logits.symmetric_kl import symmetric_kl_loss as symmetric_kl_loss
from .objectives.logits.taid import taid_loss as taid_loss
from .objectives.features.temporal_difference import temporal_difference_loss as temporal_difference_loss
from .objectives.relations.temporal_relation import temporal_relation_loss as temporal_relation_loss
from .objectives.logits.tf_kd import tf_kd_loss as tf_kd_loss
from .objectives.features.theia import theia_loss as theia_loss
from .objectives.features.tinybert import tinybert_attention_loss as tinybert_attention_loss
from .objectives.features.tinybert import tinybert_hidden_loss as tinybert_hidden_loss
from .objectives.logits.todi import todi_loss as todi_loss
from .objectives.logits.top_k import top_k_loss as top_k_loss
from .objectives.logits.top_k_ranking import top_k_ranking_loss as top_k_ranking_loss
from .objectives.logits.transducer_kd import transducer_kd_loss as transducer_kd_loss
from .objectives.logits.ttm import ttm_loss as ttm_loss
from .objectives.logits.tvd import tvd_loss as tvd_loss
from .objectives.features.two_dpass import two_dpass_loss as two_dpass_loss
from .objectives.logits.uld import uld_loss as uld_loss
from .objectives.features.unic import unic_loss as unic_loss
from .objectives.logits.uskd import uskd_loss as uskd_loss
from .objectives.features.vid import vid_loss as vid_loss
from .objectives.logits.view_consistency import view_consistency_loss as view_consistency_loss
from .objectives.features.vitkd import vitkd_generation_loss as vitkd_generation_loss
from .objectives.features.vitkd import vitkd_mimicking_loss as vitkd_mimicking_loss
from .objectives.features.vkd import vkd_loss as vkd_loss
from .objectives.relations.wcord import wcord_transport_loss as wcord_transport_loss
from .objectives.features.wkd_feature import wkd_feature_loss as wkd_feature_loss
from .objectives.logits.wkd_logit import wkd_logit_loss as wkd_logit_loss
from .objectives.logits.wsld import wsld_loss as wsld_loss

__version__: str
__all__ = [
    "ADD",
    "AFD",
    "AKL",
    "AMRADIO",
    "AMTMLKD",
    "ARD",
    "ActivationBoundary",
    "AdaAD",
    "Adversarial",
    "AdversarialTraining",
    "AffineInvariant",
    "AffinityMimicking",
    "Agreement",
    "AlphaBeta",
    "AlphaNet",
    "Amalgamated",
    "AttentionTransfer",
    "AudioClassification",
    "AugmentedFeature",
    "BAKE",
    "BDKD",
    "BINGO",
    "BYOT",
    "Batch",
    "BiLD",
    "BoundarySamples",
    "C2KD",
    "CAMKD",
    "CIRKDMemory",
    "CIRKDMinibatch",
    "CKA",
    "CLIPFeature",
    "CLIPGradient",
    "CLIPSelf",
    "CMI",
    "CRD",
    "CSKD",
    "CTC",
    "CTCKD",
    "CTCSequence",
    "CTKD",
    "CWD",
    "Card",
    "CatKD",
    "Classification",
    "ColdBrew",
    "CompRess",
    "ConsistencyDistillation",
    "ConsistencyTraining",
    "Contrastive",
    "ContrastiveRelation",
    "CorrelationCongruence",
    "CrossEntropy",
    "CrossKD",
    "DAFL",
    "DCD",
    "DDGSD",
    "DER",
    "DETRDistill",
    "DFAD",
    "DFQ",
    "DGKD",
    "DINO",
    "DINOv2",
    "DIST",
    "DISTPlus",
    "DKD",
    "DKS",
    "DLB",
    "DMD",
    "DMD2",
    "DPHuBERT",
    "DPKD",
    "DPKDWritten",
    "DSD",
    "DSKD",
    "DSKDCMA",
    "DWPose",
    "DarkRank",
    "DeepInversion",
    "DeepSupervision",
    "DeiTHard",
    "DeiTSoft",
    "DenoisedMatching",
    "Denoising",
    "DenseLocalisationDistillation",
    "Depth",
    "Detection",
    "DiffKD",
    "Difficulty",
    "Diffusion",
    "DisCo",
    "DistiLLM",
    "DistiLLM2",
    "DistilBERT",
    "DistilHuBERT",
    "DistilWhisper",
    "DistillationExperts",
    "DistributionFocal",
    "EBKD",
    "EGA",
    "EasyConsistency",
    "EdgeSAM",
    "Ema",
    "EmbeddingRegression",
    "Ensemble",
    "Entropy",
    "FBKD",
    "FCFD",
    "FDistill",
    "FFL",
    "FGD",
    "FRSKD",
    "FSP",
    "FactorTransfer",
    "FastDataFree",
    "FilterKD",
    "FitNet",
    "FoldedTransform",
    "ForwardKL",
    "Frozen",
    "GCRD",
    "GKL",
    "GOLD",
    "GSP",
    "GradientNorm",
    "GraphClassification",
    "GuidanceDistillation",
    "HKD",
    "IAD",
    "IADII",
    "ICKD",
    "IFVD",
    "IKL",
    "IRG",
    "ITRD",
    "ImageText",
    "InteractiveContrastive",
    "JSD",
    "Jacobian",
    "KD",
    "KDCL",
    "KDDETR",
    "KDRL",
    "KDSVD",
    "KRD",
    "KTA",
    "LADD",
    "LCM",
    "LLP",
    "LLaVAKD",
    "LSP",
    "LabelSmoothing",
    "Language",
    "LinkPrediction",
    "ListMLE",
    "LocalisationDistillation",
    "LogitMAE",
    "LogitMSE",
    "LogitStandardization",
    "LwM",
    "MEAL",
    "MFT",
    "MGD",
    "MLKD",
    "MVD",
    "MarginMSE",
    "MaskedImages",
    "MaskedVideo",
    "MaskedViews",
    "MeanFlow",
    "MeanSquaredError",
    "MiniLLM",
    "MiniLM",
    "MiniLMv2",
    "MixSKD",
    "MobileBERT",
    "MobileSAM",
    "MomentumContrast",
    "MultiLabelKD",
    "MultiViewClassification",
    "MultilevelOT",
    "MultilingualMSE",
    "Mutual",
    "NKD",
    "NORM",
    "NOSMOG",
    "NST",
    "Net",
    "NodeClassification",
    "NormKD",
    "OFA",
    "OFD",
    "OKDDip",
    "ONE",
    "OPD",
    "Objective",
    "Objectives",
    "OdeRegression",
    "Offline",
    "OnPolicy",
    "OnPolicyDiffusion",
    "Optimization",
    "Outputs",
    "OwnLoss",
    "PAD",
    "PATE",
    "PCL",
    "PKD",
    "PKT",
    "PLD",
    "PODNet",
    "PSKD",
    "PairCrossEntropy",
    "PatientKD",
    "PhiS",
    "PixelPointContrast",
    "PointAffinity",
    "PointClassification",
    "PointDistiller",
    "Pose",
    "PreviousEpoch",
    "PrivateVotes",
    "PrivilegedContext",
    "ProbabilityShift",
    "Progressive",
    "PromptKD",
    "PromptLoop",
    "PromptableSegmentation",
    "RKD",
    "RLD",
    "RSLAD",
    "RankDistil",
    "Ranking",
    "RankingCrossEntropy",
    "RationaleConsistency",
    "Recommendation",
    "Recorded",
    "Reflow",
    "RegionCrops",
    "Regression",
    "RegressionKD",
    "RelationalRepresentation",
    "RelaxedRanking",
    "Representation",
    "ReusedClassifier",
    "ReverseKL",
    "ReviewKD",
    "Routed",
    "SAD",
    "SCM",
    "SDD",
    "SEED",
    "SFTN",
    "SKDPairwise",
    "SRD",
    "SRRL",
    "SSKD",
    "SampledKD",
    "Sampling",
    "Sandwich",
    "ScaleInvariantLog",
    "Schedule",
    "Scheme",
    "SegmentAnything",
    "Segmentation",
    "SemCKD",
    "SentenceEmbedding",
    "Seq2Seq",
    "Seq2SeqAttention",
    "SequenceKD",
    "SequenceLevel",
    "SeveralStudents",
    "SimCC",
    "SimKD",
    "SimReg",
    "SimilarityPreserving",
    "SinKD",
    "SkewedForwardKL",
    "SkewedReverseKL",
    "SparseSoftLabels",
    "SpeakerVerification",
    "Speculative",
    "SpeechRecognition",
    "SphericalKD",
    "SpotAdaptive",
    "StepByStep",
    "StreamlinedKD",
    "SymmetricKL",
    "TAID",
    "TTM",
    "TVD",
    "TabularClassification",
    "TabularRegression",
    "Teacher",
    "TemporalDifference",
    "TemporalRelation",
    "TextClassification",
    "TfKD",
    "TfKDSelf",
    "Theia",
    "TinyBERT",
    "ToDi",
    "TopK",
    "TopKRanking",
    "Training",
    "TransducerKD",
    "TruncatedImportance",
    "TwoDPASS",
    "ULD",
    "UNIC",
    "USKD",
    "Uncertainty",
    "Update",
    "VID",
    "ViTKD",
    "VideoClassification",
    "ViewConsistency",
    "Views",
    "VkD",
    "WCoRD",
    "WKDFeature",
    "WKDLogit",
    "WSLD",
    "WTTM",
    "ZSKT",
    "activation_boundary_loss",
    "afd_loss",
    "affine_invariant_loss",
    "affinity_mimicking_loss",
    "akl_loss",
    "alpha_beta_loss",
    "alphanet_loss",
    "am_radio_spatial_loss",
    "am_radio_summary_loss",
    "amtml_kd_angle_loss",
    "amtml_kd_hint_loss",
    "amtml_kd_loss",
    "attention_transfer_loss",
    "augmented_feature_loss",
    "bake_loss",
    "bdkd_loss",
    "bild_loss",
    "bingo_loss",
    "c2kd_loss",
    "camkd_feature_loss",
    "camkd_logit_loss",
    "cat_kd_loss",
    "cirkd_memory_loss",
    "cirkd_minibatch_loss",
    "cka_loss",
    "clip_feature_loss",
    "clip_gradient_loss",
    "clip_self_loss",
    "compress_loss",
    "contrastive_loss",
    "correlation_congruence_loss",
    "crd_loss",
    "cross_entropy_loss",
    "cross_kd_loss",
    "cs_kd_loss",
    "csd_loss",
    "ctc_kd_loss",
    "ctc_loss",
    "ctc_sequence_loss",
    "ctkd_loss",
    "cwd_loss",
    "darkrank_loss",
    "dcd_loss",
    "ddgsd_loss",
    "deit_hard_loss",
    "denoised_matching_loss",
    "denoising_loss",
    "dense_localisation_distillation_loss",
    "detr_distill_loss",
    "dgkd_loss",
    "diffkd_loss",
    "dino_loss",
    "dinov2_loss",
    "direction_loss",
    "disco_loss",
    "dist_loss",
    "dist_plus_loss",
    "distil",
    "distilbert_loss",
    "distilhubert_loss",
    "distillation_experts_loss",
    "distribution_focal_loss",
    "dkd_loss",
    "dskd_cma_loss",
    "dskd_loss",
    "dwpose_loss",
    "ebkd_loss",
    "edge_sam_loss",
    "ega_loss",
    "embedding_regression_loss",
    "factor_transfer_loss",
    "fbkd_loss",
    "fgd_loss",
    "fit",
    "fitnet_loss",
    "forward_kl_loss",
    "fsp_loss",
    "gcrd_loss",
    "gkl_loss",
    "gold_loss",
    "gsp_loss",
    "hcl_loss",
    "hkd_loss",
    "ickd_loss",
    "ifvd_loss",
    "interactive_contrastive_loss",
    "irg_graph_loss",
    "irg_transform_loss",
    "itrd_correlation_loss",
    "itrd_mutual_loss",
    "jacobian_loss",
    "jsd_loss",
    "kd_detr_loss",
    "kd_loss",
    "kdsvd_loss",
    "kta_affinity_loss",
    "kta_loss",
    "label_smoothing_loss",
    "level_fusion_loss",
    "listmle_loss",
    "llava_kd_loss",
    "llp_distribution_loss",
    "llp_rank_loss",
    "load",
    "localisation_distillation_loss",
    "logit_mae_loss",
    "logit_mse_loss",
    "lsp_loss",
    "lwm_loss",
    "margin_mse_loss",
    "masked_views_loss",
    "meal_discriminator_loss",
    "meal_similarity_loss",
    "mean_discrepancy_loss",
    "mean_squared_error_loss",
    "mft_loss",
    "mgd_loss",
    "minilmv2_loss",
    "mlkd_batch_loss",
    "mlkd_class_loss",
    "mlkd_loss",
    "mobile_sam_loss",
    "mobilebert_attention_loss",
    "mobilebert_feature_loss",
    "multilevel_ot_loss",
    "multilingual_mse_loss",
    "mvd_loss",
    "neighbour_congruence_loss",
    "nkd_loss",
    "norm_loss",
    "normkd_loss",
    "nst_loss",
    "ofa_loss",
    "ofd_loss",
    "opd_loss",
    "own_loss",
    "pad_loss",
    "pair_cross_entropy_loss",
    "patient_kd_loss",
    "phi_s_loss",
    "pixel_point_contrast_loss",
    "pkd_loss",
    "pkt_loss",
    "pld_loss",
    "podnet_loss",
    "point_affinity_loss",
    "point_distiller_loss",
    "probability_shift_loss",
    "prompt_kd_loss",
    "ps_kd_loss",
    "psd_loss",
    "rank_distil_loss",
    "ranking_cross_entropy_loss",
    "regression_kd_loss",
    "relational_representation_loss",
    "relaxed_ranking_loss",
    "reverse_kl_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "rld_loss",
    "sad_loss",
    "sampled_kd_loss",
    "scale_invariant_log_loss",
    "sdd_loss",
    "seed_loss",
    "segment_anything_loss",
    "semckd_loss",
    "seq2seq_attention_loss",
    "simcc_loss",
    "similarity_preserving_loss",
    "simkd_loss",
    "simreg_loss",
    "sinkd_loss",
    "skd_pairwise_loss",
    "skewed_forward_kl_loss",
    "skewed_reverse_kl_loss",
    "sparse_soft_labels_loss",
    "spherical_kd_loss",
    "srd_correlation_loss",
    "srd_loss",
    "srrl_loss",
    "sskd_contrastive_loss",
    "sskd_transformed_loss",
    "streamlined_kd_loss",
    "symmetric_kl_loss",
    "taid_loss",
    "temporal_difference_loss",
    "temporal_relation_loss",
    "tf_kd_loss",
    "theia_loss",
    "tinybert_attention_loss",
    "tinybert_hidden_loss",
    "todi_loss",
    "top_k_loss",
    "top_k_ranking_loss",
    "transducer_kd_loss",
    "ttm_loss",
    "tvd_loss",
    "two_dpass_loss",
    "uld_loss",
    "unic_loss",
    "uskd_loss",
    "vid_loss",
    "view_consistency_loss",
    "vitkd_generation_loss",
    "vitkd_mimicking_loss",
    "vkd_loss",
    "wcord_transport_loss",
    "wkd_feature_loss",
    "wkd_logit_loss",
    "wsld_loss",
]
