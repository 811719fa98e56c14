import Testing
@testable import WeightFile
