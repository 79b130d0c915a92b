"""
@inproceedings{Huang2022,
title = {Accurate Detection of Proteins in Cryo-Electron Tomograms from Sparse Labels},
author = {Huang, Qinwen and Zhou, Ye and Liu, Hsuan-Fu and Bartesaghi, Alberto},
booktitle = {Computer Vision - ECCV 2022},
year = {2022},
publisher = {Springer},
doi = {10.1007/978-3-031-19803-8_38}
}
"""
