import MediaPipeTasksVision
import UIKit

/// What a picture shows, by model.tflite. Normalization is in the file; labels are in labels.txt.
final class Classifier {
    struct Answer: Identifiable {
        let id: Int
        let name: String
        let score: Float
    }

    private static let shown = 5
    private static let cropFraction = 0.875
    private let labels: [String]
    private let task: ImageClassifier

    init() throws {
        guard let model = Bundle.main.path(forResource: "model", ofType: "tflite"),
              let names = Bundle.main.url(forResource: "labels", withExtension: "txt")
        else { throw CocoaError(.fileNoSuchFile) }
        labels = try String(contentsOf: names, encoding: .utf8).components(separatedBy: "\n")
        let options = ImageClassifierOptions()
        options.baseOptions.modelAssetPath = model
        options.maxResults = Self.shown
        task = try ImageClassifier(options: options)
    }

    /// The likeliest classes, with their scores in [0, 1].
    func classify(_ picture: UIImage) throws -> [Answer] {
        let result = try task.classify(image: MPImage(uiImage: Self.cropped(picture)))
        let categories = result.classificationResult.classifications.first?.categories ?? []
        return categories.map { category in
            let known = labels.indices.contains(category.index) && !labels[category.index].isEmpty
            return Answer(
                id: category.index,
                name: known ? labels[category.index] : "class \(category.index)",
                score: category.score
            )
        }
    }

    /// The part that the model was measured on, upright; MediaPipe itself would stretch the whole picture.
    private static func cropped(_ picture: UIImage) -> UIImage {
        let side = (min(picture.size.width, picture.size.height) * cropFraction).rounded()
        let format = UIGraphicsImageRendererFormat()
        format.scale = picture.scale
        let renderer = UIGraphicsImageRenderer(size: CGSize(width: side, height: side), format: format)
        return renderer.image { _ in
            picture.draw(at: CGPoint(x: (side - picture.size.width) / 2, y: (side - picture.size.height) / 2))
        }
    }
}
