import Models
import Tensors

/// What a network asks of its weight source, in order: the list of everything that a weight file has to hold.
struct Manifest {
  enum Request: Equatable {
    case matrix(name: String, MatrixShape, Precision, bias: Bool)
    case vector(name: String, dimensions: [Int])
    case table(name: String, rows: Int, columns: Int)

    var name: String {
      switch self {
      case .matrix(let name, _, _, _), .vector(let name, _), .table(let name, _, _): name
      }
    }
    var stage: Stage {
      guard let stage = name.split(separator: ".").first.flatMap({ Stage(rawValue: String($0)) }) else {
        preconditionFailure("\(name) belongs to no stage")
      }
      return stage
    }
  }
  let requests: [Request]

  init(_ configuration: ModelConfiguration) throws(WeightError) {
    let recorder = Recorder()
    _ = try Networks(recorder, configuration)
    requests = recorder.requests
  }

  /// Records requests and answers with views that nobody may read.
  private final class Recorder: WeightSource {
    var requests: [Request] = []
    private let nothing = UnsafeMutablePointer<Float>.allocate(capacity: 1)
    deinit { nothing.deallocate() }

    func matrix(_ name: String, _ shape: MatrixShape, _ precision: Precision, bias: Bool) -> PackedMatrix {
      requests.append(.matrix(name: name, shape, precision, bias: bias))
      return PackedMatrix(elements: .float32(nothing), shape: shape, bias: bias ? UnsafePointer(nothing) : nil)
    }

    func vector(_ name: String, _ dimensions: [Int]) -> UnsafePointer<Float> {
      requests.append(.vector(name: name, dimensions: dimensions))
      return UnsafePointer(nothing)
    }

    func table(_ name: String, rows: Int, columns: Int) -> EmbeddingTable {
      requests.append(.table(name: name, rows: rows, columns: columns))
      return EmbeddingTable(elements: .float32(nothing), rows: rows, columns: columns)
    }
  }
}
